//! A table that uses everything an index can be declared with, against lists that are searched.

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use wire::Index;

use crate::state::{
    index::{
        Arg, Attributes, DeclaredIndex, Field, FunctionalIndex, IndexDef, IndexError, Key, Lookup,
        Write,
    },
    records::{Record, RecordRow},
    row::Row,
    table::{Table, TableDef},
    tree::Keyed,
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Gadget {
    name: String,
    uuid: Vec<u8>,
    size: i64,
    tags: Vec<String>,
    owner: String,
    broken: bool,
}

impl Record for Gadget {
    fn primary_key(&self, key: &mut Key) {
        key.lower(&self.name);
    }
    fn modify_index(&self) -> Index {
        Index(self.size.unsigned_abs())
    }
}

const ID: DeclaredIndex<RecordRow<Gadget>> = DeclaredIndex {
    name: "id",
    attributes: Attributes {
        unique: true,
        prefix: true,
        ..Attributes::NONE
    },
    fields: &[Field::Lower(|gadget| &gadget.name)],
};
const UUID: DeclaredIndex<RecordRow<Gadget>> = DeclaredIndex {
    name: "uuid",
    attributes: Attributes {
        unique: true,
        allow_missing: true,
        prefix: true,
        ..Attributes::NONE
    },
    fields: &[Field::Uuid(|gadget| &gadget.uuid)],
};
const OWNER_AND_SIZE: DeclaredIndex<RecordRow<Gadget>> = DeclaredIndex {
    name: "owner_and_size",
    attributes: Attributes {
        allow_missing: true,
        prefix: true,
        ..Attributes::NONE
    },
    fields: &[
        Field::Text(|gadget| &gadget.owner),
        Field::Integer(|gadget| gadget.size),
    ],
};
const TAGS: DeclaredIndex<RecordRow<Gadget>> = DeclaredIndex {
    name: "tags",
    attributes: Attributes {
        allow_missing: true,
        multi: true,
        prefix: true,
        ..Attributes::NONE
    },
    fields: &[
        Field::Condition(|gadget| gadget.broken),
        Field::LowerList(|gadget| &gadget.tags),
    ],
};
const LETTERS: FunctionalIndex<RecordRow<Gadget>, char> = FunctionalIndex {
    name: "letters",
    attributes: Attributes {
        multi: true,
        ..Attributes::NONE
    },
    read: |letter, key| {
        key.unsigned(u64::from(*letter));
    },
    write: Write::Multi(|gadget, keys| {
        for letter in gadget.name.chars() {
            keys.add(|key| {
                key.unsigned(u64::from(letter));
            });
        }
    }),
    prefix: None,
};
/// Keys that are prefixes of each other, which nothing but the entry's length tells apart.
const RAW_OWNER: FunctionalIndex<RecordRow<Gadget>, str> = FunctionalIndex {
    name: "raw_owner",
    attributes: Attributes {
        allow_missing: true,
        prefix: true,
        ..Attributes::NONE
    },
    read: |owner, key| {
        key.raw(owner.as_bytes());
    },
    write: Write::One(|gadget, key| !key.raw(gadget.owner.as_bytes()).as_bytes().is_empty()),
    prefix: Some(|owner, key| {
        key.raw(owner.as_bytes());
    }),
};

fn stored(gadget: Gadget) -> RecordRow<Gadget> {
    RecordRow::new(gadget).expect("short")
}

#[derive(Debug)]
struct Gadgets;

impl TableDef for Gadgets {
    type Row = RecordRow<Gadget>;
    const ID: u16 = 99;
    const NAME: &'static str = "gadgets";
    const POINT_INDEX: bool = true;
    fn primary() -> IndexDef<Self::Row> {
        ID.def()
    }
    fn secondaries() -> Vec<IndexDef<Self::Row>> {
        vec![
            UUID.def(),
            OWNER_AND_SIZE.def(),
            TAGS.def(),
            LETTERS.def(),
            RAW_OWNER.def(),
        ]
    }
}

fn gadget() -> impl Strategy<Value = Gadget> {
    let word = || "[abAB]{0,3}";
    (
        "[abAB]{1,3}",
        prop_oneof![Just(vec![]), (0..8u8).prop_map(|n| vec![n; 16])],
        -2..3i64,
        prop::collection::vec(word(), 0..3),
        word(),
        any::<bool>(),
    )
        .prop_map(|(name, uuid, size, tags, owner, broken)| Gadget {
            name,
            uuid,
            size,
            tags,
            owner,
            broken,
        })
}

#[derive(Clone, Debug)]
enum Step {
    Put(Gadget),
    Remove(String),
    RemovePrefix(String, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => gadget().prop_map(Step::Put),
        2 => "[ab]{1,3}".prop_map(Step::Remove),
        1 => ("[ab]{0,2}", any::<bool>()).prop_map(|(prefix, undo)| Step::RemovePrefix(prefix, undo)),
    ]
}

/// All gadgets, in order of their primary keys.
#[derive(Default)]
struct Model(Vec<Gadget>);

impl Model {
    fn put(&mut self, gadget: &Gadget) -> bool {
        let id = |gadget: &Gadget| gadget.name.to_lowercase();
        let taken = |other: &Gadget| {
            id(other) != id(gadget) && !gadget.uuid.is_empty() && other.uuid == gadget.uuid
        };
        if self.0.iter().any(taken) {
            return false;
        }
        self.0.retain(|other| id(other) != id(gadget));
        self.0.push(gadget.clone());
        self.0.sort_by_key(id);
        true
    }

    fn names(&self, wanted: impl Fn(&Gadget) -> bool) -> Vec<String> {
        self.0
            .iter()
            .filter(|gadget| wanted(gadget))
            .map(|gadget| gadget.name.clone())
            .collect()
    }
}

fn found<'q, L: Lookup<RecordRow<Gadget>>>(
    table: &Table<Gadgets>,
    index: &L,
    query: L::Query<'q>,
) -> Vec<String> {
    let mut names = Vec::new();
    let collected = table.find(index, query, |gadget| {
        names.push(gadget.name.clone());
        true
    });
    collected.expect("a query that fits");
    names
}

fn found_prefix<'q, L: Lookup<RecordRow<Gadget>>>(
    table: &Table<Gadgets>,
    index: &L,
    query: L::Query<'q>,
) -> Vec<String> {
    let mut names = Vec::new();
    let collected = table.find_prefix(index, query, |gadget| {
        names.push(gadget.name.clone());
        true
    });
    collected.expect("a query that fits");
    names.sort();
    names
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

fn agrees(table: &Table<Gadgets>, model: &Model) {
    table.check();
    assert_eq!(table.len(), model.0.len());
    for word in ["a", "AB", "b", "bA", "abb"] {
        let lower = word.to_lowercase();
        assert_eq!(
            found(table, &ID, &[Arg::Text(word)]),
            model.names(|g| g.name.to_lowercase() == lower)
        );
        let prefix = model.names(|g| g.name.to_lowercase().starts_with(&lower));
        assert_eq!(found_prefix(table, &ID, &[Arg::Text(word)]), sorted(prefix));
        for broken in [false, true] {
            let tagged = |g: &Gadget| {
                g.broken == broken && g.tags.iter().any(|tag| tag.to_lowercase() == lower)
            };
            assert_eq!(
                found(table, &TAGS, &[Arg::Condition(broken), Arg::Text(word)]),
                model.names(tagged)
            );
        }
        for size in -2..3 {
            let query = [Arg::Text(word), Arg::Integer(size)];
            assert_eq!(
                found(table, &OWNER_AND_SIZE, &query),
                model.names(|g| g.owner == word && g.size == size)
            );
        }
        let owned = model.names(|g| g.owner.starts_with(word));
        assert_eq!(
            found_prefix(table, &OWNER_AND_SIZE, &[Arg::Text(word)]),
            sorted(owned.clone())
        );
        assert_eq!(found_prefix(table, &RAW_OWNER, word), sorted(owned));
        assert_eq!(
            found(table, &RAW_OWNER, word),
            model.names(|g| g.owner == word)
        );
    }
    for n in 0..8 {
        assert_eq!(
            found(table, &UUID, &[Arg::Uuid(&[n; 16])]),
            model.names(|g| g.uuid == [n; 16])
        );
        assert_eq!(
            found_prefix(table, &UUID, &[Arg::Uuid(&[n; 3])]),
            model.names(|g| g.uuid == [n; 16])
        );
    }
    for letter in "abAB".chars() {
        assert_eq!(
            found(table, &LETTERS, &letter),
            model.names(|g| g.name.contains(letter))
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn every_kind_of_index_agrees_with_a_search(steps in prop::collection::vec(step(), 1..60)) {
        let mut table: Table<Gadgets> = Table::default();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Put(gadget) => {
                    let before = table.digest();
                    let put = table.put(stored(gadget.clone()));
                    if model.put(&gadget) {
                        prop_assert!(put.is_ok());
                    } else {
                        prop_assert_eq!(put.err(), Some(IndexError::NotUnique { index: "uuid" }));
                        prop_assert_eq!(table.digest(), before);
                    }
                }
                Step::Remove(name) => {
                    let known = model.0.iter().any(|gadget| gadget.name.to_lowercase() == name);
                    let mut key = Key::default();
                    key.lower(&name);
                    prop_assert_eq!(table.remove(key.as_bytes()).is_some(), known);
                    model.0.retain(|gadget| gadget.name.to_lowercase() != name);
                }
                Step::RemovePrefix(prefix, undo) => {
                    let removed = table.remove_prefix(prefix.as_bytes());
                    let matching = model.names(|gadget| gadget.name.to_lowercase().starts_with(&prefix)).len();
                    prop_assert_eq!(removed.as_ref().map_or(0, |(count, _)| *count), matching);
                    match removed {
                        Some((_, before)) if undo => table.undo_remove_prefix(prefix.as_bytes(), &before),
                        _ => model.0.retain(|gadget| !gadget.name.to_lowercase().starts_with(&prefix)),
                    }
                }
            }
            agrees(&table, &model);
        }
    }
}

fn sample() -> Gadget {
    Gadget {
        name: "A".into(),
        uuid: vec![1; 16],
        size: 1,
        tags: vec!["t".into(), "T".into()],
        owner: "o".into(),
        broken: false,
    }
}

#[test]
fn objects_that_an_index_cannot_hold_are_refused_whole() {
    let mut table: Table<Gadgets> = Table::default();
    table.put(stored(sample())).expect("fits");
    let nameless = Gadget {
        name: String::new(),
        uuid: vec![],
        ..sample()
    };
    assert_eq!(
        table.put(stored(nameless)).err(),
        Some(IndexError::Missing { index: "letters" })
    );
    let mut single = LETTERS.def();
    single.attributes.multi = false;
    let two = stored(Gadget {
        name: "ab".into(),
        ..sample()
    });
    assert_eq!(
        single.keys_of(&two, &mut Default::default()),
        Err(IndexError::NotMulti { index: "letters" })
    );
    table.check();
    assert_eq!(table.len(), 1);
}

#[test]
fn queries_that_do_not_fit_are_named() {
    let table: Table<Gadgets> = Table::default();
    let mut none = |_: &RecordRow<Gadget>| true;
    let query = |error: Result<(), IndexError>| matches!(error, Err(IndexError::Query { .. }));
    assert!(query(table.find(&ID, &[], &mut none)));
    assert!(query(table.find(&ID, &[Arg::Integer(1)], &mut none)));
    assert!(query(table.find(&UUID, &[Arg::Uuid(&[1; 15])], &mut none)));
    assert!(query(table.find_prefix(
        &ID,
        &[Arg::Text("a"), Arg::Text("b")],
        &mut none
    )));
    assert_eq!(
        table.find_prefix(&LETTERS, &'a', &mut none),
        Err(IndexError::NoPrefix { index: "letters" })
    );
}

#[test]
fn a_stored_row_is_its_record() {
    let row = stored(sample());
    assert_eq!((row.key(), row.stamp(), &*row.name), (&b"a\0"[..], 1, "A"));
    assert!(row.is_same(&stored(sample())));
}
