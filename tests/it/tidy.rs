//! Promises about the source itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The floors, from the ground up: a file imports only from those before it.
const FLOORS: [&str; 46] = [
    "types/json",
    "types/wire",
    "types/id",
    "types/model",
    "types/api_error",
    "types/wait",
    "types/exchange",
    "types/content",
    "types/tool",
    "types/message",
    "types/tokens",
    "types/request",
    "types/weight",
    "types/event",
    "types/raw_event",
    "types/batch",
    "sync",
    "clock",
    "error",
    "sse",
    "accumulate",
    "rate_limits",
    "diagnose",
    "digest",
    "retry",
    "budget",
    "transport",
    "drain",
    "answer",
    "totals",
    "prices",
    "charge",
    "call",
    "client",
    "stream",
    "messages",
    "raw",
    "ask",
    "pages",
    "models",
    "journal",
    "batches",
    "bulk",
    "testing",
    "guide",
    "lib",
];

/// What stands beside the floors: who imports what although it does not come before.
const EXCEPTIONS: [(&str, &str); 1] = [
    // `ClientBuilder::clock`, with the feature `testing`.
    ("client", "testing"),
];

/// Words, and the only files that may contain them.
const PLACES: [(&str, &[&str]); 12] = [
    ("Instant::now", &["clock"]),
    ("SystemTime::now", &["clock"]),
    (".elapsed()", &["clock", "testing"]),
    ("thread::sleep", &[]),
    ("thread::spawn", &[]),
    ("ureq", &["transport"]),
    ("TcpStream", &[]),
    (
        "Mutex",
        &[
            "sync", "clock", "call", "client", "budget", "totals", "bulk",
        ],
    ),
    ("Condvar", &["sync", "clock", "budget", "bulk"]),
    ("RwLock", &[]),
    ("env::", &["client"]),
    ("println!", &[]),
];

#[test]
fn the_normal_build_has_the_six_dependencies_and_no_more() {
    let manifest = read(&root().join("Cargo.toml"));
    let mut section = "";
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
            let is_other = section.contains("dependencies") && section != "[dependencies]";
            let is_dev = section.contains("dev-dependencies");
            assert!(!is_other || is_dev, "{section} escapes the count");
        } else if section == "[dependencies]" && !line.is_empty() && !line.starts_with('#') {
            let (name, value) = line.split_once('=').expect("a line for each dependency");
            assert!(!value.contains("optional"), "{name} is optional");
            names.push(name.trim());
        }
    }
    assert_eq!(
        names,
        [
            "fastrand",
            "log",
            "serde",
            "serde_json",
            "thiserror",
            "ureq"
        ]
    );
    assert!(manifest.contains(r#"edition = "2024""#));
    assert!(manifest.contains(r#"rust-version = "1.85""#));
}

#[test]
fn the_normal_build_has_at_most_36_crates() {
    // Set by `cargo test`. Elsewhere, and where the crates are not on this machine, `.ci/run`
    // remains, which counts the same.
    let Some(cargo) = std::env::var_os("CARGO") else {
        return;
    };
    let tree = Command::new(cargo)
        .args([
            "tree",
            "--offline",
            "--locked",
            "-e",
            "normal",
            "--prefix",
            "none",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    if !tree.status.success() {
        return;
    }
    let text = String::from_utf8(tree.stdout).expect("cargo writes UTF-8");
    let crates: BTreeSet<String> = text
        .lines()
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert!(
        (7..=36).contains(&crates.len()),
        "{}: {crates:#?}",
        crates.len()
    );
}

#[test]
fn each_file_imports_only_from_the_floors_below_it() {
    for file in sources() {
        let own = file.floor();
        for (number, other) in file.imports() {
            let permitted = match (own.as_str(), other.as_str()) {
                _ if own == other => true,
                ("lib", _) => true,
                ("testing", other) => ["clock", "types"].contains(&other),
                pair if EXCEPTIONS.contains(&pair) => true,
                (own, other) => position(other) < position(own),
            };
            assert!(
                permitted,
                "{}:{number} imports {other} from above",
                file.name
            );
        }
    }
}

/// How far up a module is; `types` stands for all of its files.
#[track_caller]
fn position(floor: &str) -> usize {
    let of_folder = |known: &&str| known.split('/').next() == Some(floor);
    let position = FLOORS.iter().rposition(|known| *known == floor);
    let position = position.or_else(|| FLOORS.iter().rposition(of_folder));
    position.unwrap_or_else(|| panic!("{floor} is on no floor: give it one in tidy.rs"))
}

#[test]
fn words_that_belong_to_one_file_are_in_no_other() {
    let sources = sources();
    for (word, places) in PLACES {
        for file in &sources {
            let floor = file.floor();
            let exempt = places.contains(&floor.as_str()) || floor == "testing";
            for (number, line) in file.code() {
                assert!(
                    exempt || !has_word(line, word),
                    "{}:{number} names {word}",
                    file.name
                );
            }
        }
        for place in places
            .iter()
            .filter(|place| **place != "budget" && **place != "testing")
        {
            let used = sources.iter().filter(|file| file.floor() == *place);
            let used = used
                .flat_map(Source::code)
                .any(|(_, line)| has_word(line, word));
            assert!(used, "{place} does not name {word}: shorten the list");
        }
    }
}

/// Whether `line` contains `word`, and not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let starts = !word.starts_with(is_name) || !before.is_some_and(is_name);
        starts && (!word.ends_with(is_name) || !after.is_some_and(is_name))
    })
}

#[test]
fn the_library_does_not_panic_on_purpose() {
    for file in sources() {
        for (number, line) in file.code() {
            let place = format!("{}:{number}: {}", file.name, line.trim());
            for word in [
                ".unwrap()",
                "unwrap_err()",
                "panic!(",
                "todo!(",
                "unimplemented!(",
                "dbg!(",
            ] {
                assert!(!line.contains(word), "{place}");
            }
            let after = line.split_once(".expect(").map(|(_, after)| after);
            let is_told = after.is_none_or(|after| after.is_empty() || after.starts_with('"'));
            assert!(is_told, "an expect without a text: {place}");
            let attribute: String = file.text.lines().skip(number - 1).take(4).collect();
            let starts = ["allow(", "#[allow(", "#![allow("];
            let is_attribute = starts.iter().any(|start| line.starts_with(start));
            let is_told = !is_attribute || attribute.contains("reason = ") || line.contains("// ");
            assert!(is_told, "an allow without a reason: {place}");
        }
    }
}

#[test]
fn each_file_begins_with_what_it_is_for() {
    for file in sources() {
        let first = file.text.lines().next().unwrap_or_default();
        let is_readme =
            file.name == "lib.rs" && file.text.contains(r#"include_str!("../README.md")"#);
        let says = first.strip_prefix("//! ").is_some_and(|job| job.len() > 10);
        assert!(says || is_readme, "{}: {first:?}", file.name);
    }
    assert!(read(&root().join("src/lib.rs")).contains("#![forbid(unsafe_code)]"));
}

#[test]
fn each_public_type_and_function_has_an_example() {
    let (mut types, mut functions) = (0, 0);
    for file in sources() {
        let lines: Vec<&str> = file.text.lines().map(str::trim_start).collect();
        let end = lines.iter().position(|line| *line == "mod tests {");
        for (index, line) in lines.iter().enumerate().take(end.unwrap_or(usize::MAX)) {
            let is_type = line.starts_with("pub struct ") || line.starts_with("pub enum ");
            let is_function = line.starts_with("pub fn ") || line.starts_with("pub const fn ");
            // A macro that declares types names none.
            if !is_type && !is_function || line.contains('$') {
                continue;
            }
            let above = lines[..index].iter().rev();
            let mut above = above.take_while(|line| {
                line.starts_with("///") || !(line.is_empty() || line.ends_with(['{', '}']))
            });
            let has_example = above.any(|line| line.contains("```"));
            assert!(has_example, "{}:{}: {line}", file.name, index + 1);
            types += u32::from(is_type);
            functions += u32::from(is_function);
        }
    }
    assert!(
        types > 100 && functions > 350,
        "{types} types, {functions} functions"
    );
}

#[test]
fn the_version_has_its_heading_in_the_change_log() {
    let path = root().join("CHANGELOG.md");
    let heading = format!("## {}", env!("CARGO_PKG_VERSION"));
    let text = read(&path);
    let has = text.lines().any(|line| {
        let rest = line.strip_prefix(&heading);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    });
    assert!(has, "no heading {heading:?} in {}", path.display());
}

#[test]
fn the_picture_in_the_documentation_is_that_of_the_readme() {
    let folder = root().join("examples/picture");
    let definition = read(&folder.join("limits.md"));
    let inlined = definition.strip_prefix("[limits]: <data:image/svg+xml,");
    let inlined = inlined.and_then(|text| text.strip_suffix(">\n"));
    let codes = [
        ("%0A", "\n"),
        ("%3E", ">"),
        ("%3C", "<"),
        ("%23", "#"),
        ("%26", "&"),
        ("%25", "%"),
    ];
    let picture = codes.iter().fold(
        inlined.expect("a definition").to_owned(),
        |text, (code, plain)| text.replace(code, plain),
    );
    assert!(
        picture == read(&folder.join("limits.svg")),
        "limits.md holds another picture"
    );
    let readme = read(&root().join("README.md"));
    assert!(readme.contains("][limits]"), "no picture in the README");
    assert!(readme.contains("\n[limits]: examples/picture/limits.svg\n"));
}

/// One file of the library.
struct Source {
    /// Such as `types/message.rs`.
    name: String,
    text: String,
}

impl Source {
    /// The name under which it stands in the list of floors.
    fn floor(&self) -> String {
        let name = self.name.strip_suffix(".rs").unwrap_or(&self.name);
        match name.split_once('/') {
            // The index of a folder re-exports all of it.
            Some((folder, rest)) if folder != "types" || rest == "mod" => folder.to_owned(),
            // Within `types`, each of its modules is a floor.
            Some((folder, rest)) => match rest.split_once('/') {
                Some((module, _)) => format!("{folder}/{module}"),
                None => name.to_owned(),
            },
            None => name.to_owned(),
        }
    }

    /// The modules that it declares for tests only, such as `testing/tests`.
    fn test_modules(&self) -> Vec<String> {
        let folder = match self.name.rsplit_once('/') {
            Some((folder, "mod.rs")) => format!("{folder}/"),
            None if self.name == "lib.rs" => String::new(),
            _ => format!("{}/", self.name.trim_end_matches(".rs")),
        };
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = ["#[cfg(test)]", "#[cfg(any(test, fuzzing))]"];
        let declared = (1..lines.len()).filter(|at| tests.contains(&lines[at - 1]));
        declared
            .filter_map(|at| {
                let mut rest = lines[at..].iter();
                let line = rest.find(|line| **line != "#[doc(hidden)]")?;
                let line = line.strip_prefix("pub ").unwrap_or(line);
                line.strip_prefix("mod ")?.strip_suffix(';')
            })
            .map(|module| format!("{folder}{module}"))
            .collect()
    }

    /// Whether it is the file of this module, or of one within.
    fn is_of(&self, module: &str) -> bool {
        let rest = self.name.strip_prefix(module);
        rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }

    /// The lines with their numbers, without comments and without the tests at the file's end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        let end = self.text.lines().position(|line| line == "mod tests {");
        let is_index = |line: &str| line.starts_with("mod ") || line.starts_with("pub mod ");
        lines
            .take(end.unwrap_or(usize::MAX))
            .map(|(index, line)| (index + 1, line.trim_start()))
            .filter(|(_, line)| !line.starts_with("//"))
            .filter(move |(_, line)| !is_index(line))
    }

    /// The floors that it names: `crate::…`, and `super::…` within `types`, but not what its own folder
    /// has.
    fn imports(&self) -> Vec<(usize, String)> {
        let mut imports = Vec::new();
        let in_types = self.name.starts_with("types/") && self.name != "types/mod.rs";
        let in_folder = self.name.matches('/').count() > 1 && !self.name.ends_with("/mod.rs");
        for (number, line) in self.code() {
            for (at, _) in line.match_indices("crate::") {
                let is_macro = line[..at].ends_with('$');
                let path = &line[at + "crate::".len()..];
                let name = first_name(path);
                match path.strip_prefix("types::").filter(|_| in_types) {
                    Some(path) => imports.push((number, format!("types/{}", first_name(path)))),
                    None if is_macro || !name.starts_with(char::is_lowercase) => {}
                    None => imports.push((number, name.to_owned())),
                }
            }
            if let Some(at) = line.find("super::").filter(|_| in_types && !in_folder) {
                let name = first_name(&line[at + "super::".len()..]);
                imports.push((number, format!("types/{name}")));
            }
        }
        imports
    }
}

fn first_name(path: &str) -> &str {
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_');
    &path[..end.unwrap_or(path.len())]
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files of the library; those that are only compiled for tests are left out.
#[track_caller]
fn sources() -> Vec<Source> {
    let folder = root().join("src");
    let mut folders: Vec<PathBuf> = vec![folder.clone()];
    let mut sources = Vec::new();
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder of the source") {
            let path = entry.expect("an entry of the folder").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&folder).expect("below src");
            let name = name.to_string_lossy().replace('\\', "/");
            if name.ends_with(".rs") {
                let text = read(&path);
                sources.push(Source { name, text });
            }
        }
    }
    let tests: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    sources.retain(|file| !tests.iter().any(|module| file.is_of(module)));
    assert!(sources.len() > 30, "only {} files", sources.len());
    sources
}
