//! `curia operator raft list-peers`.

use serde::Deserialize;

use super::{CliError, client::Client, flags::ListPeers, output::columns};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Configuration {
    servers: Vec<Server>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Server {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    leader: bool,
    protocol_version: String,
    voter: bool,
}

pub(super) fn list_peers(flags: ListPeers) -> Result<(), CliError> {
    let getting = |CliError(why)| CliError(format!("Error getting peers: {why}"));
    let body = Client::new(&flags.client)?
        .get("/v1/operator/raft/configuration", &[])
        .and_then(|reply| reply.success())
        .map_err(getting)?;
    let configuration: Configuration = serde_json::from_slice(&body)
        .map_err(|error| getting(CliError(format!("the answer is not as expected: {error}"))))?;
    print!("{}", table(&configuration));
    Ok(())
}

/// Consul's columns, two spaces apart.
fn table(configuration: &Configuration) -> String {
    let heading = ["Node", "ID", "Address", "State", "Voter", "RaftProtocol"];
    let mut rows = vec![heading.map(String::from).to_vec()];
    for server in &configuration.servers {
        let state = if server.leader { "leader" } else { "follower" };
        rows.push(vec![
            server.node.clone(),
            server.id.clone(),
            server.address.clone(),
            state.to_string(),
            server.voter.to_string(),
            server.protocol_version.clone(),
        ]);
    }
    columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_listed_in_consuls_columns() {
        let configuration: Configuration = serde_json::from_str(
            r#"{"Servers":[
                {"ID":"id-1","Node":"server-one","Address":"127.0.0.2:8300","Leader":true,"ProtocolVersion":"3","Voter":true},
                {"ID":"id-2","Node":"s2","Address":"127.0.0.3:8300","Leader":false,"ProtocolVersion":"3","Voter":false}
            ],"Index":0}"#,
        )
        .unwrap();
        assert_eq!(
            table(&configuration),
            "Node        ID    Address         State     Voter  RaftProtocol\n\
             server-one  id-1  127.0.0.2:8300  leader    true   3\n\
             s2          id-2  127.0.0.3:8300  follower  false  3\n"
        );
    }
}
