//! Which files does a command line name, in which order, and what stands in them?
//!
//! As in Consul: files and directories in the order given, a directory's files by name, each
//! read by its ending unless `-config-format` says otherwise. What is neither `.json` nor `.hcl`
//! is left out of a directory, with a warning; named itself, it is an error.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{ConfigError, hcl};

/// A language of configuration files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Hcl,
}

impl Format {
    /// Reads `-config-format`.
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        match text {
            "json" => Ok(Self::Json),
            "hcl" => Ok(Self::Hcl),
            _ => Err(ConfigError(format!(
                "-config-format={text}: must be hcl or json"
            ))),
        }
    }

    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "json" => Some(Self::Json),
            "hcl" => Some(Self::Hcl),
            _ => None,
        }
    }
}

/// A file or directory of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The flag that named it; empty for an argument.
    pub(crate) flag: &'static str,
    /// Which.
    pub(crate) path: PathBuf,
}

impl Named {
    fn shown(&self, path: &Path) -> String {
        match self.flag {
            "" => path.display().to_string(),
            flag => format!("{flag}={}", path.display()),
        }
    }
}

/// Reads what a command line names; gives each file's tree to `take`, in order.
pub(super) fn read(
    named: &Named,
    format: Option<Format>,
    warnings: &mut Vec<String>,
    mut take: impl FnMut(&Path, Value),
) -> Vec<ConfigError> {
    if !named.path.is_dir() && named.flag != "-config-dir" {
        return match read_file(named, &named.path, format) {
            Ok(tree) => {
                take(&named.path, tree);
                Vec::new()
            }
            Err(error) => vec![error],
        };
    }
    let (files, left_out) = match files_of(named, format) {
        Ok(files) => files,
        Err(error) => return vec![error],
    };
    if let Some(first) = left_out.first() {
        let others = match left_out.len() {
            1 => String::new(),
            count => format!(" and {} others", count - 1),
        };
        warnings.push(format!(
            "skipping file {}{others}, extension must be .hcl or .json, or config format must be set",
            first.display()
        ));
    }
    let mut errors = Vec::new();
    for path in files {
        match read_file(named, &path, format) {
            Ok(tree) => take(&path, tree),
            Err(error) => errors.push(error),
        }
    }
    errors
}

/// A directory's files by name: those that are read, and those that are not.
fn files_of(
    named: &Named,
    format: Option<Format>,
) -> Result<(Vec<PathBuf>, Vec<PathBuf>), ConfigError> {
    let wrong = |error| {
        ConfigError(format!(
            "{}: cannot read the directory: {error}",
            named.shown(&named.path)
        ))
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(&named.path).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        // Directories below it are not looked into, as in Consul, and sockets are no files.
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: &PathBuf| format.is_some() || Format::of(path).is_some();
    Ok(paths.into_iter().partition(read))
}

fn read_file(named: &Named, path: &Path, format: Option<Format>) -> Result<Value, ConfigError> {
    let wrong = |why: String| ConfigError(format!("{}: {why}", named.shown(path)));
    let Some(format) = format.or_else(|| Format::of(path)) else {
        return Err(wrong(
            "is it JSON or HCL? Give it the ending .json or .hcl, or say which with -config-format"
                .into(),
        ));
    };
    let text = fs::read_to_string(path)
        .map_err(|error| wrong(format!("cannot read the file: {error}")))?;
    let tree = parse(&text, format).map_err(wrong)?;
    match tree {
        Value::Object(_) => Ok(tree),
        _ => Err(wrong("must be a JSON object {\"key\": …}".into())),
    }
}

/// Reads the text of a file, or of `-hcl`.
pub(super) fn parse(text: &str, format: Format) -> Result<Value, String> {
    match format {
        Format::Hcl => hcl::parse(text),
        Format::Json => serde_json::from_str(text).map_err(|error| {
            let hint = match hcl::parse(text) {
                Ok(_) => "; it is HCL: give it the ending .hcl, or -config-format=hcl",
                Err(_) => "",
            };
            format!("not JSON: {error}{hint}")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(
        named: &Named,
        format: Option<Format>,
    ) -> (Vec<String>, Vec<String>, Vec<ConfigError>) {
        let (mut names, mut warnings) = (Vec::new(), Vec::new());
        let errors = read(named, format, &mut warnings, |path, tree| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            names.push(format!("{name} {tree}"));
        });
        (names, warnings, errors)
    }

    #[test]
    fn a_directory_is_read_by_name_and_by_ending() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("b.json", "{\"server\": true}"),
            ("a.hcl", "server = true"),
            ("10.json", "{}"),
            ("9.json", "{}"),
            ("notes.txt", "x = 1"),
            ("README", "x = 2"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        fs::create_dir(dir.path().join("c.json")).unwrap();
        let named = |flag| Named {
            flag,
            path: dir.path().into(),
        };
        let (names, warnings, errors) = read_all(&named("-config-dir"), None);
        assert_eq!(
            names,
            [
                "10.json {}",
                "9.json {}",
                "a.hcl {\"server\":true}",
                "b.json {\"server\":true}"
            ]
        );
        assert!(errors.is_empty());
        assert_eq!(
            warnings,
            [format!(
                "skipping file {} and 1 others, extension must be .hcl or .json, or config format \
                 must be set",
                dir.path().join("README").display()
            )]
        );
        // Consul takes a directory for a file's flag as well. In one format everything is read.
        let (names, warnings, errors) = read_all(&named("-config-file"), Some(Format::Hcl));
        assert_eq!((names.len(), warnings.len()), (3, 0));
        assert_eq!(errors.len(), 3, "JSON is not HCL");
    }

    #[test]
    fn a_file_says_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curia.conf");
        fs::write(&path, "server = true").unwrap();
        let named = Named {
            flag: "-config-file",
            path: path.clone(),
        };
        let (_, _, errors) = read_all(&named, None);
        assert_eq!(
            errors[0].0,
            format!(
                "-config-file={}: is it JSON or HCL? Give it the ending .json or .hcl, or say which \
                 with -config-format",
                path.display()
            )
        );
        let (names, ..) = read_all(&named, Some(Format::Hcl));
        assert_eq!(names, ["curia.conf {\"server\":true}"]);
        let (_, _, errors) = read_all(&named, Some(Format::Json));
        assert!(
            errors[0]
                .0
                .ends_with("; it is HCL: give it the ending .hcl, or -config-format=hcl"),
            "{}",
            errors[0]
        );
    }
}
