//! Promises about the source itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The floors, from the ground up: a folder imports only from those before it. `lib.rs` lists its
/// modules in the same order.
const FLOORS: [&str; 16] = [
    "types", "clock", "error", "stream", "journal", "http", "prices", "budget", "call", "client",
    "api", "bulk", "testing", "guide", "fuzzing", "lib",
];

/// Files that import what stands above them, each with its reason.
const EXCEPTIONS: [(&str, &str); 0] = [];

/// Names, and the only folders whose code may contain them.
const RESTRICTED: [(&str, &[&str]); 12] = [
    ("Instant::now", &["clock"]),
    ("SystemTime::now", &["clock"]),
    (".elapsed()", &["clock", "testing"]),
    ("thread::sleep", &[]),
    ("thread::spawn", &[]),
    ("ureq", &["http"]),
    ("TcpStream", &[]),
    ("Mutex", &["clock", "call", "client", "budget", "bulk"]),
    ("Condvar", &["clock", "budget", "bulk"]),
    ("RwLock", &[]),
    ("env::", &["client"]),
    ("println!", &[]),
];

#[test]
fn normal_build_has_the_six_dependencies() {
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
    assert!(manifest.contains(r#"rust-version = "1.89""#));
}

#[test]
fn normal_build_has_at_most_36_crates() {
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
    assert!(crates.len() <= 36, "{}: {crates:#?}", crates.len());
}

#[test]
fn lib_lists_the_floors_in_order() {
    let floors: Vec<&str> = FLOORS[..FLOORS.len() - 1].to_vec();
    assert_eq!(declared_modules(&read(&root().join("src/lib.rs"))), floors);
}

/// A folder imports from the folders before it in `lib.rs`; a file, from those before it in the
/// `mod.rs` of its folder.
#[test]
fn imports_lead_downwards_only() {
    let sources = sources();
    let order: BTreeMap<&str, Vec<&str>> = sources
        .iter()
        .map(|file| (file.module(), declared_modules(&file.text)))
        .collect();
    let mut wrong = Vec::new();
    for file in &sources {
        let own: Vec<&str> = file
            .module()
            .split('/')
            .filter(|name| !name.is_empty())
            .collect();
        for (number, path) in file.imports() {
            let other = module_of(&order, &path);
            let permitted = EXCEPTIONS.contains(&(file.module(), other.join("/").as_str()))
                || is_below(&order, &own, &other);
            if !permitted {
                wrong.push(format!("{}:{number}: {}", file.name, path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "imports from above: {wrong:#?}");
}

/// Whether a file may import from another: both are compared where their paths part.
fn is_below(order: &BTreeMap<&str, Vec<&str>>, own: &[&str], other: &[&str]) -> bool {
    let shared = own.iter().zip(other).take_while(|(a, b)| a == b).count();
    let folder = own[..shared].join("/");
    match (own.get(shared), other.get(shared)) {
        // An index names what is in its folder, and what its own file defines.
        (None, _) => true,
        // What an index defines or re-exports stands above the files of the folder.
        (Some(_), None) => false,
        (Some(own), Some(other)) => {
            let listed = &order[folder.as_str()];
            let position = |name| listed.iter().position(|listed| listed == name);
            position(other) < position(own)
        }
    }
}

/// The file that an import leads to: the longest part of its path that names a module.
fn module_of<'p>(order: &BTreeMap<&str, Vec<&str>>, path: &'p [String]) -> Vec<&'p str> {
    let mut module: Vec<&str> = Vec::new();
    for name in path {
        let known = order.get(module.join("/").as_str());
        if !known.is_some_and(|listed| listed.contains(&name.as_str())) {
            break;
        }
        module.push(name);
    }
    module
}

/// The modules that a file declares, in their order.
fn declared_modules(text: &str) -> Vec<&str> {
    let declared = |line| {
        let line: &str = ["pub ", "pub(crate) ", "pub(super) "]
            .iter()
            .find_map(|visibility| str::strip_prefix(line, visibility))
            .unwrap_or(line);
        let name = line.strip_prefix("mod ")?;
        name.strip_suffix(';').or_else(|| name.strip_suffix(" {}"))
    };
    text.lines().filter_map(declared).collect()
}

#[test]
fn restricted_names_stay_in_their_folders() {
    let sources = sources();
    for (word, places) in RESTRICTED {
        for file in &sources {
            let floor = file.floor();
            let exempt = places.contains(&floor) || floor == "testing";
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
fn library_code_does_not_panic() {
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
fn each_file_begins_with_its_purpose() {
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
fn type_names_are_unique() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources() {
        for (number, line) in file.code() {
            // Associated types have the names that their traits give them.
            let is_associated = line.starts_with("type ") && line.contains(" = ") && {
                let indented = file.text.lines().nth(number - 1).unwrap_or_default();
                indented.starts_with("    ")
            };
            if let Some(name) = declared_type(line).filter(|_| !is_associated) {
                let place = format!("{}:{number}", file.name);
                places.entry(name.to_owned()).or_default().push(place);
            }
        }
    }
    places.retain(|_, places| places.len() > 1);
    assert!(places.is_empty(), "type names used twice: {places:#?}");
}

/// The name of the type that a line declares.
fn declared_type(line: &str) -> Option<&str> {
    let line = ["pub ", "pub(crate) ", "pub(super) "]
        .iter()
        .find_map(|visibility| line.strip_prefix(visibility))
        .unwrap_or(line);
    let rest = ["struct ", "enum ", "trait ", "type "]
        .iter()
        .find_map(|keyword| line.strip_prefix(keyword))?;
    let name = first_name(rest);
    (!name.is_empty()).then_some(name)
}

#[test]
fn changelog_has_a_heading_for_the_version() {
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
fn picture_of_the_docs_equals_that_of_the_readme() {
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
    /// Its module, such as `types/message`; that of a folder's index is the folder's, of `lib.rs` none.
    fn module(&self) -> &str {
        let name = self.name.strip_suffix(".rs").unwrap_or(&self.name);
        match name {
            "lib" => "",
            _ => name.strip_suffix("/mod").unwrap_or(name),
        }
    }

    /// The folder or file at the top in which it is, such as `types`.
    fn floor(&self) -> &str {
        let top = self.name.split('/').next().unwrap_or_default();
        top.strip_suffix(".rs").unwrap_or(top)
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

    /// What it names by a path from the root or from the module above, as paths from the root, with
    /// their lines.
    fn imports(&self) -> Vec<(usize, Vec<String>)> {
        let mut code = vec![""; self.text.lines().count()];
        for (number, line) in self.code() {
            code[number - 1] = line;
        }
        let code = code.join("\n");
        let mut above: Vec<&str> = self.module().split('/').collect();
        above.pop();
        let mut imports = Vec::new();
        for (start, from) in [("crate::", &[][..]), ("super::", &above)] {
            for (at, _) in code.match_indices(start) {
                let before = &code[..at];
                // A macro that other crates call; a part of a longer name.
                if before
                    .ends_with(|c: char| c == '$' || c == ':' || c == '_' || c.is_alphanumeric())
                {
                    continue;
                }
                let number = before.matches('\n').count() + 1;
                for path in flatten(&code[at + start.len()..]) {
                    assert!(
                        path[0] != "super",
                        "{}:{number} goes through super::super",
                        self.name
                    );
                    // What the root re-exports is the library as its users see it.
                    if from.is_empty() && !path[0].starts_with(char::is_lowercase) {
                        continue;
                    }
                    let from = from.iter().map(ToString::to_string);
                    imports.push((number, from.chain(path).collect()));
                }
            }
        }
        imports
    }
}

/// The paths that begin here: of `a::{b, c::{D, E}}` those are `a::b`, `a::c::D` and `a::c::E`.
fn flatten(text: &str) -> Vec<Vec<String>> {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        let mut paths = Vec::new();
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' if depth > 0 => {}
                ',' | '}' => {
                    if !group[start..at].trim().is_empty() {
                        paths.extend(flatten(&group[start..at]));
                    }
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
        return paths;
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    match rest.strip_prefix("::") {
        Some(rest) if !rest.starts_with('<') => flatten(rest)
            .into_iter()
            .map(|path| [vec![name.to_owned()], path].concat())
            .collect(),
        _ => vec![vec![name.to_owned()]],
    }
}

/// The identifier at the beginning of a text.
fn first_name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
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
