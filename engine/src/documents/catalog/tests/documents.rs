//! What is written, which rows of it, and in which order?

use serde_json::{Value, json as value};

use super::*;
use crate::{
    filter::shapes,
    fsm::catalog::DeregisterRequest,
    state::{
        Store,
        records::{Coord, Coordinate, JsonText},
        schema::Coordinates,
    },
};

fn document(fsm: &Fsm, question: &CatalogQuestion) -> Value {
    serde_json::from_slice(&question.answer(fsm.store().tables())).expect("JSON")
}

fn text(fsm: &Fsm, about: About) -> String {
    String::from_utf8(ask(about).answer(fsm.store().tables())).expect("UTF-8")
}

fn small() -> Fsm {
    let mut fsm = Fsm::new();
    let web = RegisterRequest {
        id: uuid(),
        ..with_service(node("n1"), "web1", "web", &["v1", "Blue"])
    };
    apply(
        &mut fsm,
        RecordOp::Register(with_check(web, "alive", "web1", "passing")),
    );
    fsm
}

#[test]
fn documents_are_written_as_consuls() {
    let mut fsm = small();
    let node = format!(
        r#"{{"ID":"{}","Node":"n1","Address":"10.0.0.1","Datacenter":"dc1","TaggedAddresses":null,"Meta":null,"CreateIndex":1,"ModifyIndex":1}}"#,
        uuid()
    );
    let rest = r#""Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"Mode":"","MeshGateway":{},"Expose":{}},"Connect":{},"PeerName":"","CreateIndex":1,"ModifyIndex":1}"#;
    let service_row = format!(
        r#"{{"ID":"web1","Service":"web","Tags":["v1","Blue"],"Address":"","Meta":null,"Port":0,{rest}"#
    );
    let check = r#"{"Node":"n1","CheckID":"alive","Name":"","Status":"passing","Notes":"","Output":"","ServiceID":"web1","ServiceName":"web","ServiceTags":["v1","Blue"],"Type":"","Interval":"","Timeout":"","ExposedPort":0,"Definition":{},"CreateIndex":1,"ModifyIndex":1}"#;
    assert_eq!(text(&fsm, About::Nodes), format!("[{node}]"));
    assert_eq!(text(&fsm, About::Services), r#"{"web":["Blue","v1"]}"#);
    let instance = format!(
        r#"[{{"ID":"{}","Node":"n1","Address":"10.0.0.1","Datacenter":"dc1","TaggedAddresses":null,"NodeMeta":null,"ServiceKind":"","ServiceID":"web1","ServiceName":"web","ServiceTags":["v1","Blue"],"ServiceAddress":"","ServiceWeights":{{"Passing":1,"Warning":1}},"ServiceMeta":{{}},"ServicePort":0,"ServiceSocketPath":"","ServiceEnableTagOverride":false,"ServiceProxy":{{"Mode":"","MeshGateway":{{}},"Expose":{{}}}},"ServiceConnect":{{}},"CreateIndex":1,"ModifyIndex":1}}]"#,
        uuid()
    );
    assert_eq!(text(&fsm, About::Service(service("web"))), instance);
    for name in ["n1".to_owned(), "N1".to_owned(), uuid()] {
        let of_node = format!(r#"{{"Node":{node},"Services":{{"web1":{service_row}}}}}"#);
        assert_eq!(text(&fsm, About::Node { node: name.clone() }), of_node);
        let list = format!(r#"{{"Node":{node},"Services":[{service_row}]}}"#);
        assert_eq!(text(&fsm, About::NodeServices { node: name }), list);
    }
    let healthy = format!(r#"[{{"Node":{node},"Service":{service_row},"Checks":[{check}]}}]"#);
    assert_eq!(text(&fsm, About::Health(service("web"))), healthy);
    assert_eq!(
        text(&fsm, About::ChecksOfNode { node: "n1".into() }),
        format!("[{check}]")
    );
    let of_service = About::ChecksOfService {
        service: "web".into(),
    };
    assert_eq!(text(&fsm, of_service), format!("[{check}]"));

    // What is not there: a null node, and lists that are never null.
    let nobody = || "nobody".to_owned();
    assert_eq!(text(&fsm, About::Node { node: nobody() }), "null");
    let list = text(&fsm, About::NodeServices { node: nobody() });
    assert_eq!(list, r#"{"Node":null,"Services":[]}"#);
    for about in [
        About::Service(service("nothing")),
        About::Health(service("nothing")),
        About::Service(Instances {
            connect: true,
            ..service("web")
        }),
        About::ChecksOfNode { node: nobody() },
        About::ChecksOfService { service: nobody() },
        About::ChecksInState {
            status: "critical".into(),
        },
    ] {
        assert_eq!(text(&fsm, about), "[]");
    }
    apply(
        &mut fsm,
        RecordOp::Deregister(DeregisterRequest {
            node: "n1".into(),
            ..DeregisterRequest::default()
        }),
    );
    assert_eq!(text(&fsm, About::Services), "{}");
    assert_eq!(text(&fsm, About::Nodes), "[]");
}

/// The rows fit the shapes by which filters know them.
#[test]
fn rows_have_the_types_that_filters_expect() {
    let mut fsm = Fsm::new();
    let mut full = with_check(
        with_service(node("n"), "web1", "web", &["t"]),
        "c",
        "web1",
        "",
    );
    full.tagged_addresses
        .insert("lan".into(), "10.0.0.1".into());
    full.node_meta.insert("k".into(), "v".into());
    let given = full.service.as_mut().expect("given");
    given.meta.insert("k".into(), "v".into());
    given
        .tagged_addresses
        .insert("lan".into(), Default::default());
    given.proxy = JsonText::parse(r#"{"DestinationServiceName":"x"}"#).expect("JSON");
    apply(&mut fsm, RecordOp::Register(full));
    for (about, shape) in [
        (About::Nodes, &shapes::NODE),
        (About::Service(service("web")), &shapes::CATALOG_SERVICE),
        (About::NodeServices { node: "n".into() }, &shapes::SERVICE),
        (About::Health(service("web")), &shapes::HEALTH_SERVICE),
        (About::ChecksOfNode { node: "n".into() }, &shapes::CHECK),
    ] {
        let found = document(&fsm, &ask(about.clone()));
        let rows = found.get("Services").unwrap_or(&found);
        let rows = rows.as_array().expect("a list");
        assert_eq!(rows.len(), 1, "{about:?}");
        assert_eq!(shape.misfits(&rows[0]), Vec::<String>::new(), "{about:?}");
    }
}

fn names(fsm: &Fsm, question: &CatalogQuestion) -> Vec<String> {
    let found = document(fsm, question);
    let rows = found.as_array().expect("a list").iter();
    let name = |row: &Value| match row["Node"].as_str() {
        Some(name) => name.to_owned(),
        None => row["Node"]["Node"].as_str().expect("a name").to_owned(),
    };
    rows.map(name).collect()
}

#[test]
fn answers_are_narrowed_as_asked() {
    let mut fsm = Fsm::new();
    for (name, tags, status, rack) in [
        ("a", &["v1", "Blue"][..], "passing", "1"),
        ("b", &["v1"], "warning", "1"),
        ("c", &["v2"], "critical", "2"),
    ] {
        let mut request = with_check(with_service(node(name), "w", "web", tags), "c", "w", status);
        request.node_meta.insert("rack".into(), rack.into());
        apply(&mut fsm, RecordOp::Register(request));
    }
    // A check of the node itself counts for its services.
    apply(
        &mut fsm,
        RecordOp::Register(with_service(node("d"), "w", "web", &["blue", "V1"])),
    );
    apply(
        &mut fsm,
        RecordOp::Register(with_check(node("d"), "alive", "", "critical")),
    );
    let tagged = |tags: &[&str]| Instances {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..service("web")
    };
    let found = |about| names(&fsm, &ask(about));
    assert_eq!(found(About::Service(tagged(&["V1"]))), ["a", "b", "d"]);
    assert_eq!(found(About::Service(tagged(&["v1", "blue"]))), ["a", "d"]);
    assert_eq!(found(About::Health(tagged(&["nothing"]))), [""; 0]);
    let passing = Instances {
        passing: true,
        ..service("web")
    };
    assert_eq!(found(About::Health(passing)), ["a"]);
    let narrowed = |about, filter: &str, rack: &str| CatalogQuestion {
        about,
        narrow: Narrow {
            filter: filter.into(),
            node_meta: match rack {
                "" => Vec::new(),
                rack => vec![("rack".into(), rack.into())],
            },
            ..Narrow::default()
        },
    };
    let found = |about, filter, rack| names(&fsm, &narrowed(about, filter, rack));
    assert_eq!(found(About::Nodes, "", "1"), ["a", "b"]);
    assert_eq!(found(About::Nodes, "Meta.rack == \"2\"", ""), ["c"]);
    assert_eq!(found(About::Nodes, "Node != \"a\"", "1"), ["b"]);
    let web = || About::Health(service("web"));
    assert_eq!(found(web(), "Checks.Status == critical", ""), ["c", "d"]);
    assert_eq!(found(web(), "", "2"), ["c"]);
    let any = || About::ChecksInState {
        status: "any".into(),
    };
    assert_eq!(found(any(), "ServiceID == \"w\"", "1"), ["a", "b"]);
    let services = document(
        &fsm,
        &narrowed(About::Services, "ServiceTags contains \"v2\"", ""),
    );
    assert_eq!(services, value!({"web": ["v2"]}));
    let services = document(&fsm, &narrowed(About::Services, "", "2"));
    assert_eq!(services, value!({"web": ["v2"]}));
    let wrong = narrowed(About::Nodes, "Nodex == 1", "");
    let why = wrong.check().expect_err("no such field").to_string();
    assert_eq!(
        why,
        "Failed to create boolean expression evaluator: Selector \"Nodex\" is not valid"
    );
    assert_eq!(document(&fsm, &wrong), value!([]));
}

/// Rows of a listing that is longer than a leaf of the tree, which once ended there in a test.
#[test]
fn long_listings_are_whole() {
    let mut fsm = Fsm::new();
    for n in 0..500 {
        apply(
            &mut fsm,
            RecordOp::Register(with_service(node(&format!("n{n:03}")), "w", "web", &[])),
        );
    }
    for about in [
        About::Nodes,
        About::Service(service("web")),
        About::Health(service("web")),
    ] {
        assert_eq!(names(&fsm, &ask(about)).len(), 500);
    }
}

#[test]
fn the_nearest_come_first_and_the_unknown_last() {
    let mut store = Store::new();
    let mut txn = store.begin();
    for (name, at) in [("a", 3.0), ("b", 1.0), ("d", 2.0), ("here", 0.0)] {
        let place = Coordinate {
            node: name.into(),
            segment: String::new(),
            coord: Coord {
                vec: vec![at, 0.0],
                ..Coord::default()
            },
        };
        txn.put_record::<Coordinates, _>(place).expect("short");
    }
    let other_segment = Coordinate {
        node: "c".into(),
        segment: "x".into(),
        coord: Coord::default(),
    };
    txn.put_record::<Coordinates, _>(other_segment)
        .expect("short");
    for name in ["a", "b", "c", "d", "e"] {
        crate::fsm::catalog::register(
            &mut txn,
            Index(1),
            &with_service(node(name), "w", "web", &[]),
        )
        .expect("fine");
    }
    txn.commit();
    let order = |about: About, near: &str| -> Vec<String> {
        let question = CatalogQuestion {
            about,
            narrow: Narrow {
                near: near.into(),
                ..Narrow::default()
            },
        };
        let found: Value = serde_json::from_slice(&question.answer(store.tables())).expect("JSON");
        let rows = found.as_array().expect("a list").iter();
        rows.map(|row| {
            let node = row["Node"].as_str().or(row["Node"]["Node"].as_str());
            node.expect("a name").to_owned()
        })
        .collect()
    };
    for about in [
        About::Nodes,
        About::Service(service("web")),
        About::Health(service("web")),
    ] {
        assert_eq!(order(about.clone(), "HERE"), ["b", "d", "a", "c", "e"]);
        assert_eq!(order(about.clone(), "unknown"), ["a", "b", "c", "d", "e"]);
        assert_eq!(order(about, ""), ["a", "b", "c", "d", "e"]);
    }
}
