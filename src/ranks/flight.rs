//! Messages under way over MPI, each with the memory that it uses: all the calls by which MPI reads and writes ours.

use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Range;

use ::mpi::ffi::{self, MPI_Comm, MPI_Request};
use bytemuck::Pod;

use crate::error::{Error, Result, one_line};

/// The most bytes of one message: its length is a C int.
const MOST: usize = 1 << 30;

/// A communicator over all ranks with no messages but ours. It lasts until MPI is finalised.
#[derive(Clone, Copy)]
pub(super) struct Comm(MPI_Comm);

// SAFETY: a handle. Every use is under the lock of the one who holds it (`MPI_THREAD_SERIALIZED`).
unsafe impl Send for Comm {}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Comm")
    }
}

impl Comm {
    /// A duplicate of `MPI_COMM_WORLD`, whose errors are returned. All ranks call it together, between initialising and finalising.
    pub(super) fn of_world() -> Result<Comm> {
        // SAFETY: MPI is initialised; it writes one handle.
        unsafe {
            let mut comm = ffi::RSMPI_COMM_NULL;
            check("cannot make a communicator", ffi::MPI_Comm_dup(ffi::RSMPI_COMM_WORLD, &mut comm))?;
            let set = ffi::MPI_Comm_set_errhandler(comm, ffi::RSMPI_ERRORS_RETURN);
            check("cannot take errors of a communicator", set)?;
            Ok(Comm(comm))
        }
    }

    /// Ends all processes of the run.
    pub(super) fn abort(self, code: u8) -> ! {
        // SAFETY: takes no memory of ours.
        unsafe { ffi::MPI_Abort(self.0, code.into()) };
        std::process::exit(code.into())
    }
}

/// An error of MPI, in its own words.
fn check(what: &str, code: c_int) -> Result<()> {
    if code == ffi::MPI_SUCCESS as c_int {
        return Ok(());
    }
    let mut text = [0u8; ffi::MPI_MAX_ERROR_STRING as usize + 1];
    let mut len: c_int = 0;
    // SAFETY: MPI writes at most `MPI_MAX_ERROR_STRING` characters.
    unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast::<c_char>(), &mut len) };
    let text = String::from_utf8_lossy(&text[..usize::try_from(len).unwrap_or(0).min(text.len())]).into_owned();
    Err(Error::Train(format!("MPI: {what}: {}", one_line(text))))
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Send,
    Receive,
}

/// Messages under way, from one buffer or into one. The buffer is out of reach until all of them have arrived: [`Flight::land`]. If that
/// never comes, the buffer is leaked, since MPI may still use it.
pub(super) struct Flight<T: Pod> {
    buffer: ManuallyDrop<Vec<T>>,
    /// The peer of each message that has not arrived.
    left: Vec<(usize, MPI_Request)>,
}

impl<T: Pod> Flight<T> {
    /// Sends parts of `buffer` to ranks.
    pub(super) fn send(
        comm: Comm,
        tag: c_int,
        buffer: Vec<T>,
        to: impl IntoIterator<Item = (usize, Range<usize>)>,
    ) -> Result<Self> {
        Self::start(comm, tag, buffer, to, Way::Send)
    }

    /// Receives into parts of `buffer`, in ascending order, from ranks. A message may be shorter than its part, if the part is at most
    /// 1 GiB.
    pub(super) fn receive(
        comm: Comm,
        tag: c_int,
        buffer: Vec<T>,
        from: impl IntoIterator<Item = (usize, Range<usize>)>,
    ) -> Result<Self> {
        Self::start(comm, tag, buffer, from, Way::Receive)
    }

    fn start(
        comm: Comm,
        tag: c_int,
        buffer: Vec<T>,
        places: impl IntoIterator<Item = (usize, Range<usize>)>,
        way: Way,
    ) -> Result<Self> {
        let mut flight = Flight { buffer: ManuallyDrop::new(buffer), left: Vec::new() };
        let (len, start) = (flight.buffer.len(), flight.buffer.as_mut_ptr().cast::<u8>());
        let mut behind = 0;
        for (peer, range) in places {
            assert!(range.end <= len && (way == Way::Send || range.start >= behind), "messages lie apart");
            behind = range.end;
            let bytes = range.start * size_of::<T>()..range.end * size_of::<T>();
            for at in bytes.clone().step_by(MOST) {
                let count = (bytes.end - at).min(MOST) as c_int;
                // SAFETY: `at..at + count` lies within the buffer. Nobody else reads or writes the buffer until the request is done
                // (`land`), and it is not freed before (`drop`). Its elements have no bits that are not allowed (`Pod`).
                let (code, request) = unsafe {
                    let place = start.add(at).cast::<c_void>();
                    let (kind, rank) = (ffi::RSMPI_UINT8_T, peer as c_int);
                    let mut request = ffi::RSMPI_REQUEST_NULL;
                    let code = match way {
                        Way::Send => ffi::MPI_Isend(place, count, kind, rank, tag, comm.0, &mut request),
                        Way::Receive => ffi::MPI_Irecv(place, count, kind, rank, tag, comm.0, &mut request),
                    };
                    (code, request)
                };
                // One that failed counts as under way too: the buffer is leaked.
                flight.left.push((peer, request));
                check("cannot reach another rank", code)?;
            }
        }
        Ok(flight)
    }

    /// Lets the messages go on. Whether all have arrived.
    pub(super) fn test(&mut self) -> Result<bool> {
        let mut at = 0;
        while at < self.left.len() {
            let mut done: c_int = 0;
            // SAFETY: a request that is not done yet. A failed one stays in the list, so that the buffer is leaked.
            let code = unsafe { ffi::MPI_Test(&mut self.left[at].1, &mut done, ffi::RSMPI_STATUS_IGNORE) };
            check("cannot reach another rank", code)?;
            if done != 0 {
                self.left.swap_remove(at);
            } else {
                at += 1;
            }
        }
        Ok(self.left.is_empty())
    }

    /// The ranks whose messages have not arrived, one for each message.
    pub(super) fn waits_for(&self) -> impl Iterator<Item = usize> {
        self.left.iter().map(|(peer, _)| *peer)
    }

    /// The buffer, after [`Flight::test`] was true.
    pub(super) fn land(mut self) -> Vec<T> {
        assert!(self.left.is_empty(), "messages are still under way");
        std::mem::take(&mut self.buffer)
    }
}

impl<T: Pod> Drop for Flight<T> {
    fn drop(&mut self) {
        if self.left.is_empty() {
            // SAFETY: once, and no message uses it any more.
            unsafe { ManuallyDrop::drop(&mut self.buffer) };
        }
    }
}

// SAFETY: requests are handles, used under the lock of the one who holds the communicator.
unsafe impl<T: Pod + Send> Send for Flight<T> {}
