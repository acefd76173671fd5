//! Questions on the control socket: one line of JSON each.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

/// Octets of a line, its end included.
pub const MAX_LINE: usize = 4096;
/// Items of a page: where nobody says, and at most.
pub const DEFAULT_LIMIT: u16 = 50;
pub const MAX_LIMIT: u16 = 500;

/// A question to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "request", rename_all = "lowercase")]
pub enum Request {
    /// Everything.
    Status,
    /// Of a headend: the edges that its configuration names.
    Edges(Page),
    Devices(Page),
    Device {
        name: String,
    },
    Alarms,
    /// The last events, the latest first.
    Recent {
        /// Of this kind alone.
        #[serde(skip_serializing_if = "Option::is_none")]
        kind: Option<String>,
        limit: u16,
    },
    /// The state, and then how it changes.
    Subscribe,
}

/// A part of a long list, in the order of the names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Page {
    /// What comes after this name: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    pub limit: u16,
    pub filter: Filter,
}

/// What has all that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// A part of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of a device at an edge: reachable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// Of a device at a headend: bound to this edge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge: Option<String>,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            after: None,
            limit: DEFAULT_LIMIT,
            filter: Filter::default(),
        }
    }
}

/// What is wrong with what came: always the asker's doing.
#[derive(Debug, Error)]
pub enum RequestError {
    #[error("a request is one line of at most {MAX_LINE} octets")]
    TooLong,
    #[error("a request is one line, and nothing comes after it")]
    MoreThanOne,
    #[error("a request is a JSON object in one line: {0}")]
    NotJson(serde_json::Error),
    #[error("a request names itself, as in {{\"request\":\"status\"}}: {POSSIBLE}")]
    Nameless,
    #[error("there is no request `{0}`: {POSSIBLE}")]
    Unknown(String),
    #[error("`{request}`: {source}")]
    Fields {
        request: &'static str,
        source: serde_json::Error,
    },
    #[error("`limit` is 1 to {MAX_LIMIT}, not {0}")]
    Limit(u16),
}

const POSSIBLE: &str = "status, edges, devices, device, alarms, recent and subscribe are possible, see docs/control.md";

impl Request {
    /// Reads a line, with or without its end.
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        if line.len() > MAX_LINE {
            return Err(RequestError::TooLong);
        }
        let mut fields: Map<String, Value> =
            serde_json::from_slice(line).map_err(RequestError::NotJson)?;
        let Some(Value::String(name)) = fields.remove("request") else {
            return Err(RequestError::Nameless);
        };
        match name.as_str() {
            "status" => of("status", fields).map(|Nothing {}| Self::Status),
            "edges" => page("edges", fields).map(Self::Edges),
            "devices" => page("devices", fields).map(Self::Devices),
            "device" => of("device", fields).map(|Named { name }| Self::Device { name }),
            "alarms" => of("alarms", fields).map(|Nothing {}| Self::Alarms),
            "recent" => {
                let Recent { kind, limit } = of("recent", fields)?;
                let limit = within(limit)?;
                Ok(Self::Recent { kind, limit })
            }
            "subscribe" => of("subscribe", fields).map(|Nothing {}| Self::Subscribe),
            _ => Err(RequestError::Unknown(name)),
        }
    }

    /// As a line.
    pub fn to_line(&self) -> String {
        // Names and numbers: there is nothing in it that JSON can't say.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recent {
    #[serde(default)]
    kind: Option<String>,
    #[serde(default = "default_limit")]
    limit: u16,
}

fn default_limit() -> u16 {
    DEFAULT_LIMIT
}

fn of<T: for<'a> Deserialize<'a>>(
    request: &'static str,
    fields: Map<String, Value>,
) -> Result<T, RequestError> {
    let read = T::deserialize(Value::Object(fields));
    read.map_err(|source| RequestError::Fields { request, source })
}

fn page(request: &'static str, fields: Map<String, Value>) -> Result<Page, RequestError> {
    let page: Page = of(request, fields)?;
    within(page.limit)?;
    Ok(page)
}

fn within(limit: u16) -> Result<u16, RequestError> {
    match limit {
        1..=MAX_LIMIT => Ok(limit),
        _ => Err(RequestError::Limit(limit)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(line: &str) -> String {
        Request::parse(line.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_may_be_left_out_has_a_default() {
        for (line, request) in [
            (r#"{"request":"status"}"#, Request::Status),
            (r#"{"request":"edges"}"#, Request::Edges(Page::default())),
            (
                r#" {"limit": 7, "request": "devices", "filter": {"connected": false}} "#,
                Request::Devices(Page {
                    limit: 7,
                    filter: Filter {
                        connected: Some(false),
                        ..Filter::default()
                    },
                    ..Page::default()
                }),
            ),
            (
                r#"{"request":"recent","kind":null}"#,
                Request::Recent {
                    kind: None,
                    limit: DEFAULT_LIMIT,
                },
            ),
        ] {
            assert_eq!(Request::parse(line.as_bytes()).unwrap(), request, "{line}");
        }
    }

    #[test]
    fn an_error_says_what_is_possible() {
        for (line, part) in [
            ("", "JSON object in one line: EOF"),
            ("GET / HTTP/1.1", "JSON object in one line: "),
            ("[]", "JSON object in one line: "),
            ("{}", r#"as in {"request":"status"}: status, edges, "#),
            (r#"{"request":1}"#, "names itself"),
            (
                r#"{"request":"reboot"}"#,
                "no request `reboot`: status, edges",
            ),
            (r#"{"request":"status","all":1}"#, "`status`: unknown field"),
            (
                r#"{"request":"edges","limt":1}"#,
                "expected one of `after`, `limit`, `filter`",
            ),
            (
                r#"{"request":"edges","limit":-1}"#,
                "`edges`: invalid value",
            ),
            (
                r#"{"request":"edges","limit":0}"#,
                "`limit` is 1 to 500, not 0",
            ),
            (r#"{"request":"recent","limit":501}"#, "not 501"),
            (r#"{"request":"device"}"#, "`device`: missing field `name`"),
            (
                r#"{"request":"devices","filter":"press"}"#,
                "`devices`: invalid type",
            ),
        ] {
            let said = said(line);
            assert!(said.contains(part), "{line}: {said}");
        }
        let deep = r#"{"a":"#.repeat(MAX_LINE / 5);
        assert!(said(&deep).contains("recursion limit"), "{}", said(&deep));
        assert!(said(&" ".repeat(MAX_LINE + 1)).contains("at most 4096 octets"));
    }

    fn filter() -> impl Strategy<Value = Filter> {
        let text = || prop::option::of(".{0,20}");
        (text(), prop::option::of(any::<bool>()), text()).prop_map(|(name, connected, edge)| {
            Filter {
                name,
                connected,
                edge,
            }
        })
    }

    fn request() -> impl Strategy<Value = Request> {
        let limit = || 1..=MAX_LIMIT;
        let page = || {
            let after = prop::option::of(".{0,20}");
            (after, limit(), filter()).prop_map(|(after, limit, filter)| Page {
                after,
                limit,
                filter,
            })
        };
        prop_oneof![
            Just(Request::Status),
            Just(Request::Alarms),
            Just(Request::Subscribe),
            page().prop_map(Request::Edges),
            page().prop_map(Request::Devices),
            ".{0,20}".prop_map(|name| Request::Device { name }),
            (prop::option::of("[a-z-]{0,20}"), limit())
                .prop_map(|(kind, limit)| Request::Recent { kind, limit }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(request in request()) {
            let line = request.to_line();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(Request::parse(line.as_bytes()).unwrap(), request);
        }

        #[test]
        fn no_octets_do_harm(line in prop::collection::vec(any::<u8>(), 0..5000)) {
            let _ = Request::parse(&line);
        }

        #[test]
        fn nor_do_requests_with_one_octet_changed(
            request in request(),
            at in any::<prop::sample::Index>(),
            octet in any::<u8>(),
        ) {
            let mut line = request.to_line().into_bytes();
            let at = at.index(line.len());
            line[at] = octet;
            match Request::parse(&line) {
                Ok(Request::Edges(page) | Request::Devices(page)) => {
                    prop_assert!((1..=MAX_LIMIT).contains(&page.limit));
                }
                Ok(_) => {}
                Err(error) => prop_assert!(error.to_string().len() < 8 * MAX_LINE),
            }
        }
    }
}
