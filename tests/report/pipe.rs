//! A pipe or other file that is not regular stays.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use tpgm::report;

use super::one_run;

#[test]
fn a_page_takes_the_place_of_no_pipe() {
    let (folder, dir) = one_run(false);
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = report::write(&[dir], &pipe).unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
}
