//! What `--help` shows, as a reader takes it.

use clap::{Command, CommandFactory, Parser};

use super::Cli;

/// The examples of every command, with the command that shows them.
fn examples() -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(&Cli::command(), "fieldlock", &mut found);
    found
}

fn collect(command: &Command, name: &str, found: &mut Vec<(String, String)>) {
    let help = command.get_after_help().map(ToString::to_string);
    let help = help.unwrap_or_default().replace("\\\n", " ");
    let lines = help.lines().filter(|line| line.starts_with("  fieldlock "));
    found.extend(lines.map(|line| (name.to_owned(), line.trim().to_owned())));
    for sub in command.get_subcommands() {
        collect(sub, &format!("{name} {}", sub.get_name()), found);
    }
}

/// What `fieldlock policy key FILE --print` prints, for the command that stands in its place.
const KEY: &str =
    "p256:BBL9dGe5kso03X0lZMaSf3Mm7ayISh4yDfmvcuLY6bFeFfq5isvsx1xMLJpEM6AXmUyW9MkYy0rXRXSC1yX3G1c=";

/// The words of one command as a shell gives them, up to a pipe, a redirection or a comment. No variable or
/// pattern is expanded, and none is looked for.
fn words(line: &str) -> Vec<String> {
    let line = line.replace("$(fieldlock policy key policy.key --print)", KEY);
    let mut words = Vec::new();
    let mut word = String::new();
    let mut within = None;
    for character in line.chars() {
        match (within, character) {
            (Some(quote), _) if quote == character => within = None,
            (Some(_), _) => word.push(character),
            (None, '\'' | '"') => within = Some(character),
            (None, '|' | '<' | '>' | '#') => break,
            (None, ' ') if word.is_empty() => {}
            (None, ' ') => words.push(std::mem::take(&mut word)),
            (None, _) => word.push(character),
        }
    }
    assert_eq!(within, None, "a quote is open: {line}");
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[test]
fn examples_in_help_are_commands_that_the_program_takes() {
    let examples = examples();
    assert!(examples.len() > 40, "{}", examples.len());
    let mut wrong = String::new();
    for (name, line) in &examples {
        if let Err(error) = Cli::try_parse_from(words(line)) {
            wrong += &format!("{name} --help: {line}\n{error}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn an_agent_shows_its_own_examples() {
    for (name, line) in examples() {
        if ["fieldlock edge", "fieldlock headend", "fieldlock status"].contains(&name.as_str()) {
            assert!(line.starts_with(&name), "{name} --help shows {line}");
        }
    }
}
