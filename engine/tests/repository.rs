//! Does the repository keep its own rules?
//!
//! The rules that a compiler does not check: modules import only from steps below them, the core
//! names no runtime, each bound has a test that reaches it, files open with what they are for.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Top to bottom. A module may import only from those after it.
const STAIRCASE: [&str; 15] = [
    "cli",
    "server",
    "client",
    "cluster",
    "shard",
    "consensus",
    "snapshot",
    "log",
    "documents",
    "fsm",
    "state",
    "acl",
    "filter",
    "io",
    "mutant",
];

/// Steps that are sans-io: no runtime, socket, thread, clock or random source by name.
const SANS_IO: [&str; 9] = [
    "shard",
    "consensus",
    "snapshot",
    "log",
    "documents",
    "fsm",
    "state",
    "acl",
    "filter",
];

/// What those steps must not name.
const OUTSIDE: [&str; 9] = [
    "glommio",
    "std::net",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "std::fs",
    "rand::",
    "getrandom",
    "hyper",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the engine lies in the workspace")
        .to_owned()
}

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

/// The code of a file without its tests, which may use what they like.
fn code_without_tests(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("the file was just listed");
    text.split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn step_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("engine/src")).ok()?;
    let first = inside
        .components()
        .next()?
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    Some(first.trim_end_matches(".rs").to_owned())
}

/// Whether a file holds tests only.
fn is_test_file(path: &Path) -> bool {
    let in_tests = path.components().any(|part| part.as_os_str() == "tests");
    in_tests || path.file_name().is_some_and(|name| name == "tests.rs")
}

#[test]
fn modules_import_only_from_steps_below() {
    let mut files = Vec::new();
    rust_files(&root().join("engine/src"), &mut files);
    assert!(files.len() > 20, "the engine's sources were not found");
    let mut wrong = Vec::new();
    for path in files.iter().filter(|path| !is_test_file(path)) {
        let Some(step) = step_of(path) else { continue };
        let Some(at) = STAIRCASE.iter().position(|name| *name == step) else {
            assert!(
                ["lib", "main"].contains(&step.as_str()),
                "{step} has no place on the staircase"
            );
            continue;
        };
        for (number, line) in code_without_tests(path).lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            for above in &STAIRCASE[..at] {
                let imports = line.contains(&format!("crate::{above}::"))
                    || line.starts_with(&format!("    {above}::")) && !line.contains('(');
                if imports {
                    wrong.push(format!(
                        "{}:{}: {step} imports {above}",
                        path.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports that go up the staircase:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_core_names_no_runtime() {
    let mut wrong = Vec::new();
    for step in SANS_IO {
        let mut files = Vec::new();
        rust_files(&root().join("engine/src").join(step), &mut files);
        assert!(!files.is_empty(), "{step} has no files");
        for path in files.iter().filter(|path| !is_test_file(path)) {
            for (number, line) in code_without_tests(path).lines().enumerate() {
                let line = line.split("//").next().unwrap_or_default();
                for name in OUTSIDE {
                    if line.contains(name) {
                        wrong.push(format!("{}:{}: {name}", path.display(), number + 1));
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "the sans-io core names the outside:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut files = Vec::new();
    for package in ["engine", "wire", "bench"] {
        rust_files(&root().join(package), &mut files);
    }
    let silent: Vec<String> = files
        .iter()
        .filter(|path| !path.ends_with("generated.rs"))
        .filter(|path| !fs::read_to_string(path).is_ok_and(|text| text.starts_with("//!")))
        .map(|path| path.display().to_string())
        .collect();
    assert!(
        silent.is_empty(),
        "files without an opening text:\n{}",
        silent.join("\n")
    );
}

#[test]
fn every_limit_is_named_by_a_test() {
    let limits =
        fs::read_to_string(root().join("wire/src/limits.rs")).expect("the table of limits");
    let names: Vec<&str> = limits
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "))
        .filter_map(|rest| rest.split(':').next())
        .collect();
    assert!(names.len() > 10, "the table of limits was not understood");
    let mut files = Vec::new();
    for package in ["engine", "wire", "bench"] {
        rust_files(&root().join(package), &mut files);
    }
    let tests: String = files
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(path).ok()?;
            if is_test_file(path) {
                return Some(text);
            }
            text.split_once("#[cfg(test)]")
                .map(|(_, tests)| tests.to_owned())
        })
        .collect();
    let untested: Vec<&&str> = names
        .iter()
        .filter(|name| !tests.contains(**name))
        .collect();
    assert!(
        untested.is_empty(),
        "limits that no test reaches: {untested:?}"
    );
}

#[test]
fn the_top_level_is_what_it_should_be() {
    let packages = [
        "Cargo.toml",
        "engine",
        "wire",
        "bench",
        "perf-reports",
        "scripts",
    ];
    let documents = [
        "README.md",
        "ARCHITECTURE.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
    ];
    let usual = [
        "Cargo.lock",
        ".git",
        ".gitignore",
        ".ci",
        ".cargo",
        "target",
        "rustfmt.toml",
        "clippy.toml",
    ];
    for entry in fs::read_dir(root()).expect("the workspace").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = packages
            .iter()
            .chain(&documents)
            .chain(&usual)
            .any(|known| *known == name);
        assert!(known, "{name} does not belong at the top level");
    }
    for needed in packages.iter().chain(&documents) {
        assert!(root().join(needed).exists(), "{needed} is missing");
    }
}
