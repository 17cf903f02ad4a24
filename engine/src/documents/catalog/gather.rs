//! Which rows does a question find?
//!
//! Each function makes one document. Rows are found first, as shared handles, and written straight
//! from there: nothing of a row is copied but into the document. They come in the order of the
//! tables' keys, which are node and id.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Instances, Narrow, json,
    narrow::Narrowed,
    shown::{
        ShownCheck, ShownHealth, ShownInstance, ShownNode, ShownNodeServiceList, ShownNodeServices,
        ShownService,
    },
};
use crate::{
    filter::Filter,
    fsm::catalog::nodes,
    state::{
        RecordRow, Tables,
        index::{Arg, Lookup},
        records::{Check, Node, Record, Service},
        schema::{
            CHECKS_NODE, CHECKS_NODE_SERVICE, CHECKS_SERVICE, CHECKS_STATUS, Checks, InSchema,
            Nodes, SERVICES_CONNECT, SERVICES_NODE, SERVICES_SERVICE, Services,
        },
    },
};

/// Every row of a table, in order.
fn all<D, T>(tables: &Tables) -> Vec<RecordRow<T>>
where
    D: InSchema<Row = RecordRow<T>>,
    T: Record,
{
    let mut rows = Vec::new();
    let mut cursor = D::of(tables).view().cursor();
    while cursor.scan(|row| {
        rows.push(row.clone());
        true
    }) {}
    rows
}

/// The rows under a key of an index.
fn found<D, T, L>(tables: &Tables, index: &L, query: L::Query<'_>) -> Vec<RecordRow<T>>
where
    D: InSchema<Row = RecordRow<T>>,
    T: Record,
    L: Lookup<RecordRow<T>>,
{
    let mut rows = Vec::new();
    D::of(tables)
        .find(index, query, |row| {
            rows.push(row.clone());
            true
        })
        .expect("the query fits the index");
    rows
}

/// A node by its name, or by its UUID, as Consul has it.
fn node_by(tables: &Tables, asked: &str) -> Option<RecordRow<Node>> {
    nodes::get(tables, asked)
        .cloned()
        .or_else(|| nodes::by_id(tables, asked))
}

pub(super) fn nodes(narrowed: &Narrowed<'_>) -> Vec<u8> {
    let mut rows: Vec<RecordRow<Node>> = all::<Nodes, _>(narrowed.tables);
    rows.retain(|node| narrowed.has_node(&node.node) && narrowed.passes(&ShownNode::new(node)));
    narrowed.sort(&mut rows, |node| &node.node);
    let shown: Vec<_> = rows.iter().map(|node| ShownNode::new(node)).collect();
    json(&shown)
}

/// The names of all services, each with the tags of its instances.
pub(super) fn names(narrowed: &Narrowed<'_>) -> Vec<u8> {
    let services: Vec<RecordRow<Service>> = all::<Services, _>(narrowed.tables);
    let mut names: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for service in services.iter().filter(|service| {
        narrowed.has_node(&service.node)
            && (narrowed.filter.is_empty() || passes(narrowed, service))
    }) {
        let tags = names.entry(&service.service).or_default();
        tags.extend(service.tags.iter().map(|tag| &**tag));
    }
    json(&names)
}

fn passes(narrowed: &Narrowed<'_>, service: &Service) -> bool {
    let node = nodes::get(narrowed.tables, &service.node);
    node.is_some_and(|node| narrowed.passes(&ShownInstance::new(node, service)))
}

/// The instances that are asked for, each with its node.
fn asked_for(
    narrowed: &Narrowed<'_>,
    asked: &Instances,
) -> Vec<(RecordRow<Node>, RecordRow<Service>)> {
    let tables = narrowed.tables;
    let services: Vec<RecordRow<Service>> = match asked.connect {
        true => found::<Services, _, _>(tables, &SERVICES_CONNECT, &asked.service),
        false => found::<Services, _, _>(tables, &SERVICES_SERVICE, &[Arg::Text(&asked.service)]),
    };
    let mut rows: Vec<_> = services
        .into_iter()
        .filter(|service| has_tags(service, &asked.tags) && narrowed.has_node(&service.node))
        .filter_map(|service| Some((nodes::get(tables, &service.node)?.clone(), service)))
        .collect();
    narrowed.sort(&mut rows, |(node, _)| &node.node);
    rows
}

fn has_tags(service: &Service, wanted: &[String]) -> bool {
    wanted.iter().all(|wanted| {
        let wanted = wanted.to_lowercase();
        service.tags.iter().any(|tag| tag.to_lowercase() == wanted)
    })
}

pub(super) fn instances(narrowed: &Narrowed<'_>, asked: &Instances) -> Vec<u8> {
    let rows = asked_for(narrowed, asked);
    let shown = rows
        .iter()
        .map(|(node, service)| ShownInstance::new(node, service));
    let shown: Vec<_> = shown.filter(|row| narrowed.passes(row)).collect();
    json(&shown)
}

pub(super) fn health(narrowed: &Narrowed<'_>, asked: &Instances) -> Vec<u8> {
    let mut rows = with_checks(narrowed, asked);
    rows.retain(|(_, _, checks)| {
        !asked.passing || checks.iter().all(|check| check.status == "passing")
    });
    let shown = rows.iter().map(ShownHealth::of);
    let shown: Vec<_> = shown.filter(|row| narrowed.passes(row)).collect();
    json(&shown)
}

/// An instance with its node, and the checks of both.
pub(in crate::documents) type Checked =
    (RecordRow<Node>, RecordRow<Service>, Vec<RecordRow<Check>>);

/// The instances that are asked for, whatever their health; `narrow.filter` is not looked at.
pub(in crate::documents) fn checked(
    tables: &Tables,
    narrow: &Narrow,
    asked: &Instances,
) -> Vec<Checked> {
    let filter = Filter::default();
    let narrowed = Narrowed {
        tables,
        narrow,
        filter,
    };
    with_checks(&narrowed, asked)
}

fn with_checks(narrowed: &Narrowed<'_>, asked: &Instances) -> Vec<Checked> {
    let checks_of = |service: &Service, id: &str| -> Vec<RecordRow<Check>> {
        let query = [Arg::Text(&service.node), Arg::Text(id)];
        found::<Checks, _, _>(narrowed.tables, &CHECKS_NODE_SERVICE, &query)
    };
    asked_for(narrowed, asked)
        .into_iter()
        .map(|(node, service)| {
            let mut checks = checks_of(&service, "");
            checks.extend(checks_of(&service, &service.id));
            (node, service, checks)
        })
        .collect()
}

/// The services on a node that stay.
fn services_on(narrowed: &Narrowed<'_>, node: &str) -> Vec<RecordRow<Service>> {
    let mut services: Vec<RecordRow<Service>> =
        found::<Services, _, _>(narrowed.tables, &SERVICES_NODE, &[Arg::Text(node)]);
    services.retain(|service| narrowed.passes(&ShownService::new(service)));
    services
}

pub(super) fn node(narrowed: &Narrowed<'_>, asked: &str) -> Vec<u8> {
    let Some(node) = node_by(narrowed.tables, asked) else {
        return json(&());
    };
    let services = services_on(narrowed, &node.node);
    let shown = services
        .iter()
        .map(|service| (&*service.id, ShownService::new(service)));
    json(&ShownNodeServices {
        node: ShownNode::new(&node),
        services: shown.collect(),
    })
}

pub(super) fn node_services(narrowed: &Narrowed<'_>, asked: &str) -> Vec<u8> {
    let node = node_by(narrowed.tables, asked);
    let services = match &node {
        Some(node) => services_on(narrowed, &node.node),
        None => Vec::new(),
    };
    let shown = services.iter().map(|service| ShownService::new(service));
    json(&ShownNodeServiceList {
        node: node.as_ref().map(|node| ShownNode::new(node)),
        services: shown.collect(),
    })
}

pub(super) fn checks_of_node(narrowed: &Narrowed<'_>, node: &str) -> Vec<u8> {
    let query = [Arg::Text(node)];
    checks(
        narrowed,
        found::<Checks, _, _>(narrowed.tables, &CHECKS_NODE, &query),
    )
}

pub(super) fn checks_of_service(narrowed: &Narrowed<'_>, service: &str) -> Vec<u8> {
    let query = [Arg::Text(service)];
    checks(
        narrowed,
        found::<Checks, _, _>(narrowed.tables, &CHECKS_SERVICE, &query),
    )
}

pub(super) fn checks_in_state(narrowed: &Narrowed<'_>, status: &str) -> Vec<u8> {
    let rows = match status {
        "any" => all::<Checks, _>(narrowed.tables),
        _ => found::<Checks, _, _>(narrowed.tables, &CHECKS_STATUS, &[Arg::Text(status)]),
    };
    checks(narrowed, rows)
}

fn checks(narrowed: &Narrowed<'_>, mut rows: Vec<RecordRow<Check>>) -> Vec<u8> {
    rows.retain(|check| narrowed.has_node(&check.node) && narrowed.passes(&ShownCheck::new(check)));
    narrowed.sort(&mut rows, |check| &check.node);
    let shown: Vec<_> = rows.iter().map(|check| ShownCheck::new(check)).collect();
    json(&shown)
}
