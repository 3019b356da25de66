//! Completions that the shells accept, and man pages for every command.

use std::process::Command;

use crate::Space;

#[test]
fn completions_know_the_commands_and_their_flags() {
    let space = Space::empty();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = space.ok(&format!("completions {shell}"));
        assert!(script.contains("finetune") && script.contains("proj-freq"), "{shell}");
    }
    // Bash completes with it.
    space.write("tpgm.bash", space.ok("completions bash"));
    let typed =
        "source ./tpgm.bash && COMP_WORDS=(tpgm fine) COMP_CWORD=1 && _tpgm tpgm fine tpgm && echo \"${COMPREPLY[@]}\"";
    let said = Command::new("bash").args(["-c", typed]).current_dir(space.path(".")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "finetune", "{said:?}");
}

#[test]
fn every_command_has_a_man_page() {
    let space = Space::empty();
    let pages = space.json("man --out pages/man1");
    let pages: Vec<&str> = pages["pages"].as_array().unwrap().iter().map(|page| page.as_str().unwrap()).collect();
    let help = space.ok("--help");
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let commands: Vec<&str> =
        list.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.contains(&"finetune") && commands.len() > 15, "{commands:?}");
    for command in commands.iter().filter(|command| **command != "help") {
        let path = format!("pages/man1/tpgm-{command}.1");
        assert!(pages.contains(&path.as_str()), "{path} in {pages:?}");
        let text = space.text(&path);
        assert!(text.contains(".TH") && text.contains(".SH OPTIONS"), "{path}: {text}");
    }
    assert!(space.text("pages/man1/tpgm-finetune.1").contains("proj\\-freq"));
    assert!(space.text("pages/man1/tpgm.1").contains("Robust fine\\-tuning"));
}
