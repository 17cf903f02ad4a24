//! What is registered, and the addresses that a service is reached at.

use rs_consul::{
    Consul, DeregisterEntityPayload, GetNodesRequest, GetServiceNodesRequest, QueryOptions,
    RegisterEntityCheck, RegisterEntityPayload, RegisterEntityService,
};

use crate::{Cluster, Step};

pub async fn run(cluster: &Cluster, step: Step) {
    let alive = cluster.alive();
    match step {
        Step::Before => register(alive[0], "rs-kept", "passing").await,
        Step::Killed => {}
        Step::After => {
            assert_eq!(addresses(alive[2], "rs-kept").await.len(), 1);
            deregister(alive[1], "rs-kept").await;
        }
    }
    for (at, consul) in alive.iter().enumerate() {
        services(consul, alive[(at + 1) % alive.len()]).await;
    }
}

fn node_of(service: &str) -> String {
    format!("{service}-node")
}

async fn register(consul: &Consul, service: &str, status: &str) {
    let payload = RegisterEntityPayload::builder()
        .Node(node_of(service))
        .Address("127.0.0.9".to_owned())
        .Service(
            RegisterEntityService::builder()
                .Service(service.to_owned())
                .Tags(vec!["a".to_owned()])
                .Port(80)
                .build(),
        )
        .Checks(vec![
            RegisterEntityCheck::builder()
                .Name("rs-check".to_owned())
                .CheckID("rs-check".to_owned())
                .ServiceID(service.to_owned())
                .Status(status.to_owned())
                .build(),
        ])
        .build();
    // A write whose outcome is unknown is made again; it registers the same.
    while let Err(error) = consul.register_entity(&payload).await {
        let unknown = error
            .to_string()
            .contains("leadership lost while committing log");
        assert!(unknown, "{error}");
    }
}

async fn deregister(consul: &Consul, service: &str) {
    let payload = DeregisterEntityPayload::builder()
        .Node(node_of(service))
        .build();
    consul.deregister_entity(&payload).await.unwrap();
}

async fn addresses(consul: &Consul, service: &str) -> Vec<(String, u16)> {
    let found = consul.get_service_addresses_and_ports(service, None).await;
    found.unwrap()
}

async fn services(one: &Consul, other: &Consul) {
    register(one, "rs-web", "passing").await;
    let names = other.get_all_registered_service_names(None).await.unwrap();
    assert!(names.response.iter().any(|name| name == "rs-web"));
    assert!(names.response.iter().any(|name| name == "consul"));
    assert_eq!(
        addresses(other, "rs-web").await,
        [("127.0.0.9".to_owned(), 80)]
    );
    let request = GetServiceNodesRequest::builder()
        .service("rs-web")
        .passing(true)
        .build();
    let found = other
        .get_service_nodes(request.clone(), None)
        .await
        .unwrap();
    assert_eq!(found.response[0].service.tags, ["a"]);
    assert_eq!(found.response[0].node.node, node_of("rs-web"));
    // A check that turns critical wakes who waits for the service.
    let options = QueryOptions {
        index: Some(found.index),
        wait: Some(std::time::Duration::from_secs(30)),
        ..Default::default()
    };
    let change = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        register(one, "rs-web", "critical").await;
    };
    let (woken, ()) = tokio::join!(other.get_service_nodes(request, Some(options)), change);
    assert!(woken.unwrap().response.is_empty());
    let nodes = other.get_nodes(GetNodesRequest::default(), None).await;
    let nodes = nodes.unwrap().response;
    assert!(nodes.iter().any(|node| node.node == node_of("rs-web")));
    deregister(one, "rs-web").await;
    assert!(addresses(other, "rs-web").await.is_empty());
}
