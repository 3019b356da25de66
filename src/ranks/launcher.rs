//! Which launcher started this process, and as one of how many: told by the environment, before MPI is touched.

use crate::error::{Error, Result};

/// `off`: every process is a run of its own, whoever started it. `on`: start MPI under a launcher that is not known here.
pub(super) const SWITCH: &str = "TPGM_MPI";

/// The launchers that are known, with the variables that hold the number of processes and this one's. The innermost comes first: `mpirun`
/// starts its processes through `srun` within a job of Slurm. A job's own script has `SLURM_NTASKS`, but is no step of several tasks.
const KNOWN: [(&str, &str, &str); 4] = [
    ("mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), // Open MPI, PRRTE, jsrun
    ("mpiexec", "PMI_SIZE", "PMI_RANK"),                        // MPICH, Intel MPI, Cray, Flux
    ("mpirun", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),   // MVAPICH
    ("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
];

/// What a launcher has told this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launched {
    /// The launcher, as it is called.
    pub(super) by: &'static str,
    /// How many processes it started, if it says so.
    pub(super) size: Option<usize>,
    /// Which of them this is.
    pub(super) rank: usize,
}

/// The launcher that started this process as one that may have others. `var` reads the environment.
///
/// # Errors
/// [`Error::Usage`] for a value of `TPGM_MPI` that is neither `on` nor `off`.
pub(super) fn launched(var: impl Fn(&str) -> Option<String>) -> Result<Option<Launched>> {
    match var(SWITCH).as_deref() {
        None | Some("") => Ok(known(var).filter(|launched| launched.size != Some(1))),
        Some("off") => Ok(None),
        Some("on") => Ok(Some(known(var).unwrap_or(Launched { by: "TPGM_MPI=on", size: None, rank: 0 }))),
        Some(other) => Err(Error::Usage(format!("{SWITCH}={other}: it must be on or off"))),
    }
}

/// Which of its launcher's processes this is; 0 also for one that has nothing to do with others.
pub(super) fn rank(var: impl Fn(&str) -> Option<String>) -> usize {
    if var(SWITCH).as_deref() == Some("off") { 0 } else { known(var).map_or(0, |launched| launched.rank) }
}

/// What the variables of a launcher say, whatever `TPGM_MPI` is.
fn known(var: impl Fn(&str) -> Option<String>) -> Option<Launched> {
    let number = |name: &str| var(name).and_then(|value| value.trim().parse::<usize>().ok());
    let one = KNOWN.iter().find_map(|(by, size, rank)| {
        let size = number(size).filter(|size| *size > 0)?;
        Some(Launched { by, size: Some(size), rank: number(rank).unwrap_or(0) })
    });
    // PMIx alone tells no size.
    one.or_else(|| number("PMIX_RANK").map(|rank| Launched { by: "a PMIx launcher", size: None, rank }))
}

impl Launched {
    /// What it did, for messages.
    pub(super) fn what(&self) -> String {
        match self.size {
            Some(size) => format!("{} started {size} processes", self.by),
            None => format!("{} may have started several processes", self.by),
        }
    }

    /// The error of a command that one process does.
    pub(super) fn for_one(&self, command: &str) -> Error {
        Error::Usage(format!(
            "{}, and each would do all of `tpgm {command}`: start it without a launcher, or set {SWITCH}=off for processes that have \
             nothing to do with each other; `tpgm finetune` and `tpgm compare` share their work",
            self.what()
        ))
    }

    /// The error of a program without MPI; `None` if this process can be the only one.
    #[cfg(any(test, not(feature = "mpi")))]
    pub(super) fn refused(&self) -> Option<Error> {
        let alone = self.size.is_none() && self.rank == 0 && self.by != "TPGM_MPI=on";
        let what = format!(
            "{}, and this tpgm was built without MPI: each would train on its own. Build it by cargo build --release --features mpi, \
             which takes an MPI library and libclang (Debian: apt-get install openmpi-bin libopenmpi-dev libclang-dev); or set \
             {SWITCH}=off for runs that have nothing to do with each other",
            self.what()
        );
        (!alone).then_some(Error::Usage(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vars: &[(&str, &str)]) -> Option<Launched> {
        launched(|name| vars.iter().find(|(var, _)| *var == name).map(|(_, value)| value.to_string())).unwrap()
    }

    fn started(by: &'static str, size: impl Into<Option<usize>>, rank: usize) -> Option<Launched> {
        Some(Launched { by, size: size.into(), rank })
    }

    #[test]
    fn launchers_are_known_by_what_they_set() {
        assert_eq!(of(&[]), None);
        let open_mpi = [("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "3"), ("PMIX_RANK", "3")];
        assert_eq!(of(&open_mpi), started("mpirun", 4, 3));
        assert_eq!(of(&[("PMI_SIZE", "2"), ("PMI_RANK", "0")]), started("mpiexec", 2, 0));
        assert_eq!(of(&[("MV2_COMM_WORLD_SIZE", "2"), ("MV2_COMM_WORLD_RANK", "1")]), started("mpirun", 2, 1));
        let srun = [("SLURM_STEP_NUM_TASKS", "8"), ("SLURM_PROCID", "5"), ("SLURM_NTASKS", "8"), ("PMIX_RANK", "5")];
        assert_eq!(of(&srun), started("srun", 8, 5));
        assert_eq!(of(&[("PMIX_RANK", "0")]), started("a PMIx launcher", None, 0));
    }

    #[test]
    fn one_process_is_an_ordinary_run() {
        assert_eq!(of(&[("OMPI_COMM_WORLD_SIZE", "1"), ("OMPI_COMM_WORLD_RANK", "0"), ("PMIX_RANK", "0")]), None);
        assert_eq!(of(&[("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_PROCID", "0"), ("PMIX_RANK", "0")]), None);
        // mpirun of one process, which it started through an srun of two nodes' daemons.
        let nested = [("OMPI_COMM_WORLD_SIZE", "1"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_PROCID", "0")];
        assert_eq!(of(&nested), None);
    }

    #[test]
    fn a_jobs_own_shell_is_not_one_of_its_tasks() {
        let batch = [("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "8"), ("SLURM_NPROCS", "8"), ("SLURM_PROCID", "0")];
        assert_eq!(of(&batch), None);
        // salloc's shell is a step of one task.
        assert_eq!(of(&[("SLURM_NTASKS", "8"), ("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_PROCID", "0")]), None);
        // An array's tasks are jobs of their own.
        assert_eq!(of(&[("SLURM_ARRAY_TASK_COUNT", "8"), ("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_PROCID", "0")]), None);
    }

    #[test]
    fn what_is_no_number_says_nothing() {
        for value in ["", "many", "-1", "0"] {
            assert_eq!(of(&[("OMPI_COMM_WORLD_SIZE", value)]), None);
        }
        let next = [("OMPI_COMM_WORLD_SIZE", ""), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_PROCID", "1")];
        assert_eq!(of(&next), started("srun", 2, 1));
    }

    #[test]
    fn the_switch_decides_first() {
        assert_eq!(of(&[(SWITCH, "off"), ("OMPI_COMM_WORLD_SIZE", "4")]), None);
        assert_eq!(of(&[(SWITCH, ""), ("OMPI_COMM_WORLD_SIZE", "4")]), started("mpirun", 4, 0));
        assert_eq!(of(&[(SWITCH, "on")]), started("TPGM_MPI=on", None, 0));
        assert_eq!(of(&[(SWITCH, "on"), ("PMI_SIZE", "3"), ("PMI_RANK", "2")]), started("mpiexec", 3, 2));
        let wrong = launched(|name| (name == SWITCH).then(|| "yes".into())).unwrap_err();
        assert_eq!((wrong.to_string().as_str(), wrong.exit_code()), ("TPGM_MPI=yes: it must be on or off", 2));
    }

    #[test]
    fn one_of_several_processes_speaks_first() {
        let of = |vars: &[(&str, &str)]| {
            rank(|name| vars.iter().find(|(var, _)| *var == name).map(|(_, value)| value.to_string()))
        };
        let second = [("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "1")];
        assert_eq!((of(&[]), of(&second), of(&[("PMIX_RANK", "3")])), (0, 1, 3));
        // Alone, each speaks; a wrong value of the switch is wrong for all.
        assert_eq!(of(&[&second[..], &[(SWITCH, "off")]].concat()), 0);
        assert_eq!(of(&[&second[..], &[(SWITCH, "yes")]].concat()), 1);
    }

    #[test]
    fn what_one_process_does_is_refused_to_several() {
        let error = started("srun", 2, 0).unwrap().for_one("eval");
        let text = error.to_string();
        assert!(text.starts_with("srun started 2 processes, and each would do all of `tpgm eval`: "), "{text}");
        assert!(error.exit_code() == 2 && text.contains("TPGM_MPI=off"), "{text}");
    }

    #[test]
    fn without_mpi_several_processes_are_refused_with_the_build_line() {
        let error = started("mpirun", 4, 0).unwrap().refused().unwrap();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.starts_with("mpirun started 4 processes, and this tpgm was built without MPI"), "{text}");
        for part in ["cargo build --release --features mpi", "libopenmpi-dev", "TPGM_MPI=off"] {
            assert!(text.contains(part) && !text.contains('\n'), "{text}");
        }
        assert!(started("a PMIx launcher", None, 1).unwrap().refused().is_some());
        assert!(started("a PMIx launcher", None, 0).unwrap().refused().is_none());
        assert!(started("TPGM_MPI=on", None, 0).unwrap().refused().is_some());
    }
}
