//! From what the file says to what is judged: names resolved, keys checked against each other.

mod station;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use fieldlock_modbus::Table;

use crate::error::{ModbusProblem, Problem, Problems, ProfinetProblem, position};
use crate::model::address::Span;
use crate::model::client::ClientEntry;
use crate::model::decision::RuleId;
use crate::model::function::{Functions, Slot};
use crate::model::interval::{Interval, ValueBounds};
use crate::model::number::{Bounds, Format, NumberType};
use crate::model::rule::{Addresses, Repeat, Rule};
use crate::model::scope::{Effect, Scope, Units};
use crate::model::spelling::nearest;
use crate::model::step::Step;
use crate::model::typed::{Layout, Typed};
use crate::source::{Given, SET_PREFIX, Source, SourceClient, SourceRule, SourceSet};
use crate::station::StationRule;

/// What is sound of a source. Whatever is not has been added to the problems.
pub(crate) fn compile(
    source: Source,
    text: &str,
    problems: &mut Problems,
) -> (Vec<ClientEntry>, Vec<Rule>, Vec<Arc<StationRule>>) {
    let client_names = ClientNames::collect(&source.clients, &source.sets, text, problems);
    check_sets(&source.sets, &client_names, text, problems);
    let clients = source
        .clients
        .into_iter()
        .filter_map(|client| compile_client(client, problems))
        .collect();
    let mut names = Names::new(text);
    let mut rules = Vec::new();
    let mut stations = Vec::new();
    for rule in source.rules {
        let place = place(rule.effect);
        names.take(place, &rule.span, &rule.name, problems);
        if is_for_stations(&rule) {
            stations.extend(station::compile(rule, &client_names, problems));
        } else if let Some(rule) = compile_rule(rule, &client_names, problems) {
            rules.push(rule);
        }
    }
    // The rules for devices are numbered first; where one is invalid there is no policy.
    for (id, rule) in (0..).map(RuleId).zip(&mut rules) {
        rule.id = id;
    }
    for (id, rule) in (rules.len() as u32..).map(RuleId).zip(&mut stations) {
        rule.id = id;
    }
    (clients, rules, stations.into_iter().map(Arc::new).collect())
}

/// By the key that every such rule has, or else by its others.
fn is_for_stations(rule: &SourceRule) -> bool {
    let named = !rule.stations.station.is_absent();
    named || rule.device.is_absent() && !rule.stations.is_absent()
}

fn place(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    }
}

fn check_sets(sets: &[SourceSet], client_names: &ClientNames, text: &str, problems: &mut Problems) {
    let mut names = Names::new(text);
    for set in sets {
        names.take("set", &set.span, &set.name, problems);
        for client in &set.clients {
            if !client_names.names.contains_key(client.get_ref()) {
                let unknown = client_names.unknown(client.get_ref());
                problems.add(client.span(), "set.client", unknown);
            }
        }
    }
}

fn compile_client(client: SourceClient, problems: &mut Problems) -> Option<ClientEntry> {
    let told_by_nothing =
        client.address.is_absent() && client.identity.is_absent() && client.role.is_absent();
    let controller = !client.mac.is_absent() || !client.station.is_absent();
    if controller && !told_by_nothing {
        problems.add(client.span, "client", Problem::ClientOfTwoProtocols);
        return None;
    }
    if controller && client.mac.is_absent() {
        problems.add(client.span, "client", ProfinetProblem::ControllerWithoutMac);
        return None;
    }
    if told_by_nothing && !controller {
        problems.add(client.span, "client", Problem::ClientWithoutKey);
        return None;
    }
    Some(ClientEntry {
        name: client.name.valid()?,
        address: client.address.valid().unwrap_or_default(),
        identity: client.identity.valid(),
        role: client.role.valid(),
        macs: client.mac.valid().unwrap_or_default(),
        station: client.station.valid(),
    })
}

fn compile_rule(
    rule: SourceRule,
    client_names: &ClientNames,
    problems: &mut Problems,
) -> Option<Rule> {
    check_keys(&rule, problems);
    let clients = match &rule.client {
        Given::Valid(_, scope) => {
            let key = format!("{}.client", place(rule.effect));
            client_names.resolve(scope, &key, problems)
        }
        Given::Absent | Given::Invalid => Scope::Any,
    };
    let units = match rule.unit {
        Given::Valid(_, units) => units,
        Given::Absent | Given::Invalid => Units::ANY,
    };
    let mut functions = rule.function.valid()?;
    let addresses = match rule.address {
        Given::Valid(_, Scope::Any) => Addresses::any(),
        Given::Valid(_, Scope::Only(spans)) => {
            Addresses::from_spans(spans.into_iter().map(toml::Spanned::into_inner))
        }
        Given::Absent | Given::Invalid => Addresses::default(),
    };
    let value = rule.value.valid();
    let order = rule.word_order.valid().unwrap_or_default();
    let format = rule.number.valid().map(|number| Format { number, order });
    let layout = match format {
        None => Layout::registers(),
        Some(format) => Layout::new(format, addresses.of(Table::HoldingRegister)),
    };
    let typed = format.map(|_| Typed {
        bounds: match value {
            Some((min, max)) => Bounds::of(min, max),
            None => layout.format().number.all(),
        },
        layout: layout.clone(),
        partial: rule.partial.valid().unwrap_or_default(),
        masks: functions.names(Slot::MASK_WRITE),
    });
    let value = value
        .filter(|_| typed.is_none())
        .map(|(min, max)| ValueBounds {
            // Of a register, as there is no type.
            min: min.rank as u16,
            max: max.rank as u16,
        });
    let step = rule.step.valid().map(|(max, within)| Step {
        max,
        within,
        layout,
    });
    if step.is_some() && !functions.names(Slot::MASK_WRITE) {
        // As with value bounds: what it makes of a register is not known.
        functions.remove(Slot::MASK_WRITE);
    }
    Some(Rule {
        id: RuleId(0),
        name: rule.name.valid()?,
        effect: rule.effect,
        reason: rule.reason.valid(),
        clients,
        via: rule.via.valid().unwrap_or(Scope::Any),
        devices: rule.device.valid()?,
        units,
        functions,
        addresses,
        value,
        typed,
        rate: rule.rate.valid(),
        step,
        repeat: match rule.repeat.valid() {
            Some(true) => Repeat::Allow,
            Some(false) | None => Repeat::Refuse,
        },
        time: rule.time.valid().unwrap_or_default(),
    })
}

/// What must hold of a rule that sees registers as numbers.
fn check_type(rule: &SourceRule, add: &mut impl FnMut(&Range<usize>, &str, ModbusProblem)) {
    let wide = |(_, number): (_, &NumberType)| number.registers() > 1;
    if !rule.number.as_valid().is_some_and(wide) {
        for (key, span) in [
            ("word_order", rule.word_order.span()),
            ("partial", rule.partial.span()),
        ] {
            if let Some(span) = span {
                add(&span, key, ModbusProblem::WithoutWideType);
            }
        }
    }
    if let (Effect::Deny, Some((span, _))) = (rule.effect, rule.partial.as_valid()) {
        add(span, "partial", ModbusProblem::PartialInDeny);
    }
    let Some((place, number)) = rule.number.as_valid() else {
        return;
    };
    if let (Effect::Deny, Given::Absent) = (rule.effect, &rule.value) {
        add(place, "type", ModbusProblem::TypeInDeny);
    }
    let functions = rule.function.as_valid().map(|(_, functions)| *functions);
    let writes = |table: Table| {
        let writes = |slot: Slot| slot.writes() && slot.table() == Some(table);
        functions.is_none_or(|functions| functions.iter().any(writes))
    };
    if !writes(Table::HoldingRegister) {
        add(place, "type", ModbusProblem::TypeWithoutRegisters);
    }
    let spans = match rule.address.as_valid() {
        Some((span, Scope::Any)) => return add(span, "address", ModbusProblem::TypeAnywhere),
        Some((_, Scope::Only(spans))) => spans,
        None => return,
    };
    let coil = spans
        .iter()
        .find(|item| item.get_ref().table == Table::Coil);
    if let Some(coil) = coil.filter(|_| writes(Table::Coil)) {
        add(&coil.span(), "address", ModbusProblem::TypeOfCoils);
    }
    check_whole(*number, spans, add);
}

/// Ranges of values begin and end with a value, and where they overlap they agree on where those are.
fn check_whole(
    number: NumberType,
    spans: &[toml::Spanned<Span>],
    add: &mut impl FnMut(&Range<usize>, &str, ModbusProblem),
) {
    let table = Table::HoldingRegister;
    let holding = || spans.iter().filter(|item| item.get_ref().table == table);
    let joined = Addresses::from_spans(holding().map(|item| *item.get_ref()));
    let joined = joined.of(table);
    let is_whole = |registers: u16| registers.is_multiple_of(number.registers());
    for item in holding() {
        let (place, span) = (item.span(), *item.get_ref());
        let within = joined.partition_point(|range| range.last < span.first);
        let Some(Interval { first, last }) = joined.get(within).copied() else {
            continue;
        };
        // A value has 1, 2 or 4 registers: the sum may well wrap.
        if !is_whole((span.last - span.first).wrapping_add(1)) {
            add(&place, "address", ModbusProblem::Uneven { span, number });
        } else if !is_whole(span.first - first) {
            let joined = Span { table, first, last };
            add(
                &place,
                "address",
                ModbusProblem::Interleaved {
                    span,
                    joined,
                    number,
                },
            );
        }
    }
}

/// Keys that must be there, and keys that must not.
fn check_keys(rule: &SourceRule, problems: &mut Problems) {
    let mut add = |span: &Range<usize>, key: &str, problem: Problem| {
        problems.add(
            span.clone(),
            format!("{}.{key}", place(rule.effect)),
            problem,
        );
    };
    for (key, span) in rule.stations.given() {
        add(&span, key, Problem::KeyOfStations);
    }
    check_type(rule, &mut |span: &Range<usize>, key: &str, problem| {
        add(span, key, problem.into());
    });
    if rule.device.is_absent() {
        let hint =
            "name the devices, or write device = \"any\"; for PROFINET name stations instead";
        add(&rule.span, "device", Problem::Missing { hint });
    }
    if rule.function.is_absent() {
        let hint = "name functions, such as [\"read\"] or [3, 4], or write function = \"any\"";
        add(&rule.span, "function", Problem::Missing { hint });
    }
    if let Some((_, functions)) = rule.function.as_valid() {
        if rule.address.is_absent() && functions.iter().any(|slot| slot.table().is_some()) {
            let hint = "its functions have addresses; list them, such as [\"holding 0-99\"], or write address = \"any\"";
            add(&rule.span, "address", Problem::Missing { hint });
        }
        if let (Functions::ANY, Some((span, addresses))) = (*functions, rule.address.as_valid())
            && *addresses != Scope::Any
        {
            add(
                span,
                "address",
                ModbusProblem::AnyFunctionAtAddresses.into(),
            );
        }
        if let Some((span, _)) = rule.value.as_valid()
            && let Some(problem) = unbounded(functions)
        {
            add(span, "value", problem.into());
        }
        if let (Effect::Allow, Some((span, _))) = (rule.effect, rule.step.as_valid())
            && let Some(problem) = without_steps(functions)
        {
            add(span, "step", problem.into());
        }
        if let (Effect::Allow, Some((span, _))) = (rule.effect, rule.repeat.as_valid())
            && !functions.iter().any(Slot::may_change_state)
        {
            add(span, "repeat", Problem::RepeatWithoutWrite);
        }
    }
    if let (Effect::Allow, Given::Valid(span, _)) = (rule.effect, &rule.reason) {
        add(span, "reason", Problem::ReasonInAllow);
    }
    if let (Effect::Deny, Given::Valid(span, _)) = (rule.effect, &rule.rate) {
        add(span, "rate", Problem::RateInDeny);
    }
    if let (Effect::Deny, Given::Valid(span, _)) = (rule.effect, &rule.step) {
        add(span, "step", Problem::StepInDeny);
    }
    if let (Effect::Deny, Given::Valid(span, _)) = (rule.effect, &rule.repeat) {
        add(span, "repeat", Problem::RepeatInDeny);
    }
}

/// Why value bounds make no sense with these functions, if so.
fn unbounded(functions: &Functions) -> Option<ModbusProblem> {
    if !functions.iter().any(Slot::writes) {
        return Some(ModbusProblem::ValueWithoutWrite);
    }
    opaque(functions, "value")
}

/// Why a step makes no sense with these functions, if so.
fn without_steps(functions: &Functions) -> Option<ModbusProblem> {
    if !functions.iter().any(Slot::writes_registers) {
        return Some(ModbusProblem::StepWithoutRegisters);
    }
    opaque(functions, "step")
}

/// A rule that bounds what it lets through must not let through what it can't see.
fn opaque(functions: &Functions, key: &'static str) -> Option<ModbusProblem> {
    let function = functions.iter().find(|slot| slot.table().is_none())?;
    Some(ModbusProblem::ValueOfOpaque {
        function: function.to_string(),
        key,
    })
}

/// The names of the clients, in the order of the file.
struct ClientNames {
    names: HashMap<String, u32>,
    /// Where the clients of sets stand: what is wrong with those is reported there, once.
    in_sets: HashSet<usize>,
}

impl ClientNames {
    fn collect(
        clients: &[SourceClient],
        sets: &[SourceSet],
        text: &str,
        problems: &mut Problems,
    ) -> Self {
        let mut taken = Names::new(text);
        let mut names = HashMap::new();
        for (index, client) in (0..).zip(clients) {
            taken.take("client", &client.span, &client.name, problems);
            if let Some((_, name)) = client.name.as_valid() {
                names.entry(name.clone()).or_insert(index);
            }
        }
        let listed = sets.iter().flat_map(|set| &set.clients);
        let in_sets = listed.map(|client| client.span().start).collect();
        Self { names, in_sets }
    }

    fn resolve(
        &self,
        scope: &Scope<toml::Spanned<String>>,
        key: &str,
        problems: &mut Problems,
    ) -> Scope<u32> {
        let Scope::Only(list) = scope else {
            return Scope::Any;
        };
        let mut clients = Vec::with_capacity(list.len());
        for item in list {
            match self.names.get(item.get_ref()) {
                Some(client) => clients.push(*client),
                None if self.in_sets.contains(&item.span().start) => {}
                None => problems.add(item.span(), key, self.unknown(item.get_ref())),
            }
        }
        clients.sort_unstable();
        clients.dedup();
        Scope::Only(clients)
    }

    fn unknown(&self, name: &str) -> Problem {
        let mut known: Vec<&str> = self.names.keys().map(String::as_str).collect();
        known.sort_unstable();
        Problem::UnknownClient {
            name: name.to_owned(),
            nearest: nearest(name, known).map(str::to_owned),
        }
    }
}

/// Names used so far, with where.
struct Names<'t> {
    text: &'t str,
    used: HashMap<String, usize>,
}

impl<'t> Names<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            used: HashMap::new(),
        }
    }

    fn take(
        &mut self,
        place: &str,
        entry: &Range<usize>,
        name: &Given<String>,
        problems: &mut Problems,
    ) {
        let key = format!("{place}.name");
        let (span, name) = match name {
            Given::Valid(span, name) => (span, name),
            Given::Invalid => return,
            Given::Absent => {
                let hint = "give it a name; the audit log and `policy explain` use it";
                problems.add(entry.clone(), key, Problem::Missing { hint });
                return;
            }
        };
        if name == "any" {
            problems.add(span.clone(), key, Problem::Reserved);
        } else if place == "client" && name.starts_with(SET_PREFIX) {
            problems.add(span.clone(), key, Problem::ReservedForSets);
        } else if let Some(offset) = self.used.get(name) {
            let (line, _) = position(self.text, *offset);
            let name = name.clone();
            problems.add(span.clone(), key, Problem::Duplicate { name, line });
        } else {
            self.used.insert(name.clone(), span.start);
        }
    }
}
