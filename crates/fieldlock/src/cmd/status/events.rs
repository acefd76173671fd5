//! The last events, for people.

use std::fmt::{Result, Write as _};

use fieldlock_status::Event;

pub(super) fn render(events: &[Event]) -> String {
    let mut out = String::new();
    for event in events {
        // Writing to a String can't fail.
        let _ = line(&mut out, event);
    }
    out
}

fn line(out: &mut String, event: &Event) -> Result {
    write!(out, "{} {:>6} {}", event.time, event.seq, event.kind)?;
    for (words, name) in [
        ("", &event.alarm),
        ("tunnel ", &event.tunnel),
        ("client ", &event.client),
        ("device ", &event.device),
        ("station ", &event.station),
    ] {
        if let Some(name) = name {
            write!(out, ", {words}{name}")?;
        }
    }
    for (words, number) in [("unit", event.unit), ("function", event.function)] {
        if let Some(number) = number {
            write!(out, ", {words} {number}")?;
        }
    }
    for (words, word) in [("", &event.outcome), ("rule ", &event.rule)] {
        if let Some(word) = word {
            write!(out, ", {words}{word}")?;
        }
    }
    if let Some(count) = event.count {
        write!(out, ", {count} times")?;
    }
    match &event.reason {
        Some(reason) => writeln!(out, ": {reason}"),
        None => writeln!(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = Event {
            seq: 12,
            time: "2030-03-04T10:00:00.000000Z".into(),
            kind: "denied".into(),
            client: Some("hmi-1".into()),
            device: Some("press-07".into()),
            unit: Some(1),
            function: Some(6),
            outcome: Some("refused".into()),
            reason: Some("value 7 is above 5".into()),
            count: Some(3),
            ..Event::default()
        };
        assert_eq!(
            render(&[event]),
            "2030-03-04T10:00:00.000000Z     12 denied, client hmi-1, device press-07, unit 1, \
             function 6, refused, 3 times: value 7 is above 5\n"
        );
    }
}
