//! What do the commands about tokens, policies and roles have in common?
//!
//! Each is a [`Kind`] of object that is listed, read, made, changed and deleted by the same calls,
//! with Consul's sentence around whatever goes wrong.

use clap::Args;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    super::{
        CliError,
        client::{Client, path_of},
        flags::ClientFlags,
        output::say,
        rows::none,
    },
    show::Shape,
};

/// Whom to ask, and how to show the answer.
#[derive(Args, Debug, Default)]
pub(super) struct Shown {
    #[command(flatten)]
    shape: Shape,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

impl Shown {
    /// The client, once it is clear that no argument is one too many.
    pub(super) fn client(&self) -> Result<Client, CliError> {
        none(&self.args)?;
        Client::new(&self.client)
    }

    /// Prints a document of the API: as it is, or as `pretty` says.
    pub(super) fn print<T: DeserializeOwned>(
        &self,
        body: &[u8],
        pretty: impl Fn(&T, bool) -> String,
    ) -> Result<(), CliError> {
        self.shape.print(body, pretty)
    }

    /// Says what was done, where that does not disturb a document.
    pub(super) fn done(&self, text: &str) -> Result<(), CliError> {
        match self.shape.json()? {
            true => Ok(()),
            false => say(text),
        }
    }
}

/// Whom to ask, where there is no answer to show.
#[derive(Args, Debug, Default)]
pub(super) struct Asked {
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Which policy or role.
#[derive(Args, Debug, Default)]
pub(super) struct Which {
    /// Its id, or the beginning of it
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    /// Its name; on updates with -id, its new name
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) name: String,
}

/// What an object is for.
#[derive(Args, Debug, Default)]
pub(super) struct Description {
    /// What it is for
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) description: String,
}

/// A kind of object.
pub(super) struct Kind {
    /// What it is called.
    noun: &'static str,
    /// Path of all of them.
    all: &'static str,
    /// Path before the id of one.
    one: &'static str,
}

pub(super) const TOKEN: Kind = Kind {
    noun: "token",
    all: "/v1/acl/tokens",
    one: "/v1/acl/token",
};

pub(super) const POLICY: Kind = Kind {
    noun: "policy",
    all: "/v1/acl/policies",
    one: "/v1/acl/policy",
};

pub(super) const ROLE: Kind = Kind {
    noun: "role",
    all: "/v1/acl/roles",
    one: "/v1/acl/role",
};

/// Length of a whole id; shorter ones are looked for in a list.
const ID_LEN: usize = 36;

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "AccessorID", alias = "ID")]
    id: String,
}

impl Kind {
    pub(super) fn path(&self, id: &str) -> String {
        path_of(self.one, id)
    }

    /// The whole of an id of which the beginning was given.
    pub(super) fn whole_id(&self, client: &Client, part: &str) -> Result<String, CliError> {
        self.begins_with(client, part)
            .map_err(|error| self.undetermined(error))
    }

    fn begins_with(&self, client: &Client, part: &str) -> Result<String, CliError> {
        if part.len() >= ID_LEN {
            return Ok(part.to_owned());
        }
        let noun = self.noun;
        let listed: Vec<Listed> = client.get(self.all, &[])?.json()?;
        let mut found = listed.into_iter().filter(|one| one.id.starts_with(part));
        match (found.next(), found.next()) {
            (Some(only), None) => Ok(only.id),
            (None, _) => Err(CliError(format!("No such {noun} ID with prefix: {part}"))),
            _ => Err(CliError(format!("{noun} ID prefix {part} is ambiguous"))),
        }
    }

    fn undetermined(&self, CliError(why): CliError) -> CliError {
        CliError(format!("Error determining {} ID: {why}", self.noun))
    }

    /// The id of what is named by id, or else by name.
    pub(super) fn id_of(&self, client: &Client, which: &Which) -> Result<String, CliError> {
        match (&*which.id, &*which.name) {
            ("", "") => Err(CliError(
                "Must specify either the -id or -name parameters".into(),
            )),
            ("", name) => client
                .get(&path_of(&format!("{}/name", self.one), name), &[])
                .and_then(|reply| reply.json())
                .map(|Listed { id }| id)
                .map_err(|error| self.undetermined(error)),
            (id, _) => self.whole_id(client, id),
        }
    }

    /// Shows all of them.
    pub(super) fn list<T: DeserializeOwned>(
        &self,
        shown: &Shown,
        pretty: impl Fn(&[T], bool) -> String,
    ) -> Result<(), CliError> {
        let failed =
            |CliError(why)| CliError(format!("Failed to retrieve the {} list: {why}", self.noun));
        let all = shown
            .client()?
            .get(self.all, &[])
            .and_then(|reply| reply.success())
            .map_err(failed)?;
        shown.print(&all, |all: &Vec<T>, meta| pretty(all, meta))
    }

    /// Shows one.
    pub(super) fn read<T: DeserializeOwned>(
        &self,
        client: &Client,
        id: &str,
        shown: &Shown,
        pretty: impl Fn(&T, bool) -> String,
    ) -> Result<(), CliError> {
        let one = client
            .get(&self.path(id), &[])
            .and_then(|reply| reply.success())
            .map_err(|CliError(why)| {
                CliError(format!("Error reading {} {id:?}: {why}", self.noun))
            })?;
        shown.print(&one, pretty)
    }

    /// One as it is now, to be changed.
    pub(super) fn current<T: DeserializeOwned>(
        &self,
        client: &Client,
        id: &str,
    ) -> Result<T, CliError> {
        client
            .get(&self.path(id), &[])
            .and_then(|reply| reply.json())
            .map_err(|CliError(why)| {
                CliError(format!(
                    "Error when retrieving current {}: {why}",
                    self.noun
                ))
            })
    }

    /// Makes one and shows it.
    pub(super) fn create<T: DeserializeOwned>(
        &self,
        body: &Value,
        shown: &Shown,
        pretty: impl Fn(&T, bool) -> String,
    ) -> Result<(), CliError> {
        let made = shown
            .client()?
            .put(self.one, &[], body.to_string().as_bytes())
            .and_then(|reply| reply.success())
            .map_err(|CliError(why)| {
                CliError(format!("Failed to create new {}: {why}", self.noun))
            })?;
        shown.print(&made, pretty)
    }

    /// Deletes the one that `id` finds.
    pub(super) fn delete(
        &self,
        asked: &Asked,
        id: impl Fn(&Client) -> Result<String, CliError>,
    ) -> Result<(), CliError> {
        none(&asked.args)?;
        let client = Client::new(&asked.client)?;
        let id = id(&client)?;
        let noun = self.noun;
        client
            .delete(&self.path(&id), &[])
            .and_then(|reply| reply.success())
            .map_err(|CliError(why)| CliError(format!("Error deleting {noun} {id:?}: {why}")))?;
        let (first, rest) = noun.split_at(1);
        let noun = first.to_uppercase() + rest;
        say(format!("{noun} {id:?} deleted successfully"))
    }
}
