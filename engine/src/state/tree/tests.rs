//! The tree against `BTreeMap`, with views held across every change.

use std::{
    collections::BTreeMap,
    rc::{Rc, Weak},
};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row(Rc<(Vec<u8>, u64)>);

impl Row {
    fn new(key: &[u8], stamp: u64) -> Self {
        Self(Rc::new((key.to_vec(), stamp)))
    }
}

impl Keyed for Row {
    fn key(&self) -> &[u8] {
        &self.0.0
    }
    fn stamp(&self) -> u64 {
        self.0.1
    }
    fn digest(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(&self.0.0, self.0.1)
    }
}

type Model = BTreeMap<Vec<u8>, u64>;

fn rows_of(mut cursor: Cursor<Row>, slice: usize) -> Vec<(Vec<u8>, u64)> {
    let mut rows = Vec::new();
    loop {
        let taken = cursor.take(slice);
        if taken.is_empty() {
            assert!(cursor.take(slice).is_empty(), "the end stays the end");
            return rows;
        }
        assert!(taken.len() <= slice);
        rows.extend(taken.iter().map(|row| row.0.as_ref().clone()));
    }
}

fn with_prefix(model: &Model, prefix: &[u8]) -> Vec<(Vec<u8>, u64)> {
    model
        .iter()
        .filter(|(key, _)| key.starts_with(prefix))
        .map(|(key, stamp)| (key.clone(), *stamp))
        .collect()
}

fn agree(view: &View<Row>, model: &Model, prefix: &[u8]) {
    assert_eq!(view.len(), model.len());
    let expected = with_prefix(model, prefix);
    assert_eq!(
        view.max_stamp(prefix),
        expected.iter().map(|(_, stamp)| *stamp).max().unwrap_or(0)
    );
    assert_eq!(view.count_prefix(prefix), expected.len());
    assert_eq!(rows_of(view.prefix(prefix), 7), expected);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<u8>),
    /// Many at once, so that trees of several levels occur: a prefix and how many.
    Fill(Vec<u8>, u16),
    Remove(usize),
    /// So many neighbours one by one, from this row on: empties leaves.
    RemoveRun(usize, u16),
    RemovePrefix(Vec<u8>),
    /// The prefix of an existing key that is so many bytes shorter.
    RemoveAround(usize, usize),
    Open,
    Close(usize),
    Undo(usize),
    Rebuild,
}

/// Keys of few letters, so that prefixes, equal heads and zero padding happen all the time.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let letter = prop_oneof![4 => Just(b'a'), 2 => Just(b'b'), 1 => Just(0), 1 => Just(0xff)];
    prop_oneof![
        4 => prop::collection::vec(letter.clone(), 0..14),
        1 => prop::collection::vec(letter, 0..3).prop_map(|tail| [&[b'a'; 20][..], &tail].concat()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => key().prop_map(Step::Insert),
        3 => (key(), 1..200u16).prop_map(|(prefix, count)| Step::Fill(prefix, count)),
        30 => any::<usize>().prop_map(Step::Remove),
        3 => (any::<usize>(), 1..60u16).prop_map(|(at, count)| Step::RemoveRun(at, count)),
        3 => key().prop_map(Step::RemovePrefix),
        6 => (any::<usize>(), 0..4usize).prop_map(|(at, cut)| Step::RemoveAround(at, cut)),
        6 => Just(Step::Open),
        6 => any::<usize>().prop_map(Step::Close),
        2 => any::<usize>().prop_map(Step::Undo),
        1 => Just(Step::Rebuild),
    ]
}

fn nth(model: &Model, at: usize) -> Vec<u8> {
    match model.len() {
        0 => b"missing".to_vec(),
        len => model.keys().nth(at % len).expect("within").clone(),
    }
}

fn run(steps: Vec<Step>) {
    let mut tree = Tree::new();
    let mut model = Model::new();
    let mut open: Vec<(View<Row>, Model)> = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        let stamp = number as u64 + 1;
        let mut probe = Vec::new();
        let step = match step {
            Step::RemoveAround(at, cut) => {
                let mut prefix = nth(&model, at);
                prefix.truncate(prefix.len().saturating_sub(cut));
                Step::RemovePrefix(prefix)
            }
            other => other,
        };
        match step {
            Step::Insert(key) => {
                let old = tree.insert(Row::new(&key, stamp)).map(|row| row.0.1);
                assert_eq!(old, model.insert(key.clone(), stamp));
                probe = key;
            }
            Step::Fill(prefix, count) => {
                // A stride that visits all numbers, out of order.
                for n in 0..count {
                    let number = (u32::from(n) * 257 % u32::from(count)) as u16;
                    let key = [&prefix[..], &number.to_be_bytes()].concat();
                    let old = tree.insert(Row::new(&key, stamp)).map(|row| row.0.1);
                    assert_eq!(old, model.insert(key, stamp));
                }
                probe = prefix;
            }
            Step::Remove(at) => {
                let key = nth(&model, at);
                assert_eq!(tree.remove(&key).map(|row| row.0.1), model.remove(&key));
                assert!(tree.remove(&key).is_none());
                probe = key;
            }
            Step::RemoveRun(at, count) => {
                probe = nth(&model, at);
                let run: Vec<_> = model
                    .range(probe.clone()..)
                    .take(count.into())
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in run {
                    assert_eq!(tree.remove(&key).map(|row| row.0.1), model.remove(&key));
                    tree.check();
                }
            }
            Step::RemovePrefix(prefix) => {
                let expected = with_prefix(&model, &prefix);
                match tree.remove_prefix(&prefix) {
                    None => assert!(expected.is_empty()),
                    Some((count, before)) => {
                        assert_eq!(count, expected.len());
                        assert_eq!(rows_of(before.prefix(&prefix), usize::MAX), expected);
                        agree(&before, &model, &[]);
                    }
                }
                model.retain(|key, _| !key.starts_with(&prefix));
                probe = prefix;
            }
            Step::Open => open.push((tree.view(), model.clone())),
            Step::Close(at) if !open.is_empty() => {
                let (view, then) = open.swap_remove(at % open.len());
                agree(&view, &then, b"a");
            }
            Step::Undo(at) if !open.is_empty() => {
                let (view, then) = &open[at % open.len()];
                tree.restore(view);
                model = then.clone();
            }
            Step::Rebuild => {
                let mut builder = TreeBuilder::new();
                let mut cursor = tree.view().cursor();
                loop {
                    let rows = cursor.take(usize::MAX);
                    if rows.is_empty() {
                        break;
                    }
                    rows.iter()
                        .for_each(|row| builder.push(row.clone()).expect("in order"));
                }
                tree = builder.finish();
            }
            Step::Close(_) | Step::Undo(_) | Step::RemoveAround(..) => {}
        }
        tree.check();
        probe.pop();
        agree(&tree.view(), &model, &probe);
        for (key, stamp) in &model {
            assert_eq!(tree.get(key).map(|row| row.0.1), Some(*stamp));
        }
    }
    for (view, then) in &open {
        agree(view, then, &[]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn behaves_as_a_btree_map_at_every_point_in_time(steps in prop::collection::vec(step(), 1..120)) {
        run(steps);
    }

    #[test]
    fn seek_finds_the_first_key_at_or_behind(keys in prop::collection::btree_set(key(), 0..300), sought in key()) {
        let mut tree = Tree::new();
        keys.iter().for_each(|key| { tree.insert(Row::new(key, 1)); });
        let mut cursor = tree.view().cursor();
        cursor.seek(&sought);
        let found = cursor.take(1).first().map(|row| row.key().to_vec());
        prop_assert_eq!(found, keys.range(sought..).next().cloned());
    }
}

/// Sees whether a row is still held.
type Watch = Weak<(Vec<u8>, u64)>;

fn many(count: usize) -> (Tree<Row>, Vec<Watch>) {
    let mut tree = Tree::new();
    let mut alive = Vec::new();
    for number in 0..count {
        let row = Row::new(
            format!("service/{:08}", number * 7919 % count).as_bytes(),
            number as u64,
        );
        alive.push(Rc::downgrade(&row.0));
        tree.insert(row);
    }
    assert_eq!(tree.len(), count);
    (tree, alive)
}

fn living(rows: &[Watch]) -> usize {
    rows.iter().filter(|row| row.strong_count() > 0).count()
}

#[test]
fn dropping_the_last_view_of_removed_rows_frees_nothing_on_the_spot() {
    let (mut tree, rows) = many(10_000);
    let view = tree.view();
    tree.clear();
    assert_eq!(view.len(), 10_000);
    drop(view);
    assert_eq!(living(&rows), 10_000, "a view's drop must be O(1)");
    let mut slices = 0;
    loop {
        let before = living(&rows);
        let more = tree.release_some(100);
        assert!(
            before - living(&rows) <= 100 + 64,
            "a slice frees no more than asked and a leaf"
        );
        slices += 1;
        if !more {
            break;
        }
    }
    assert_eq!(living(&rows), 0);
    assert!(slices >= 10_000 / 164);
}

#[test]
fn writes_free_what_views_leave_behind() {
    let (mut tree, rows) = many(10_000);
    let view = tree.view();
    tree.remove_prefix(b"service/0000")
        .expect("ten thousand rows");
    drop(view);
    assert_eq!(living(&rows), 10_000);
    for number in 0..400 {
        tree.insert(Row::new(format!("other/{number}").as_bytes(), 1));
    }
    assert_eq!(living(&rows), 0);
    assert!(!tree.release_some(1));
}

#[test]
fn a_view_outlives_its_tree() {
    let (tree, rows) = many(1_000);
    let view = tree.view();
    let graveyard = tree.graveyard().clone();
    drop(tree);
    assert_eq!(rows_of(view.cursor(), 50).len(), 1_000);
    drop(view);
    assert_eq!(living(&rows), 1_000);
    while graveyard.release_some(10) {}
    assert_eq!(living(&rows), 0);
}

#[test]
fn keys_in_order_fill_their_leaves() {
    let mut tree = Tree::new();
    let full = node::LEAF_ROWS_MAX as u64;
    for number in 0..full * 64 {
        tree.insert(Row::new(&number.to_be_bytes(), number));
    }
    tree.check();
    let mut cursor = tree.view().cursor();
    let mut leaves = 0;
    while !cursor.take(usize::MAX).is_empty() {
        leaves += 1;
    }
    assert_eq!(leaves, 64);
}

#[test]
fn rows_out_of_order_are_refused_by_the_builder() {
    let mut builder = TreeBuilder::new();
    builder.push(Row::new(b"b", 1)).expect("first");
    assert!(builder.push(Row::new(b"b", 2)).is_err());
    assert!(builder.push(Row::new(b"a", 2)).is_err());
    builder.push(Row::new(b"c", 1)).expect("in order");
    assert_eq!(builder.finish().len(), 2);
}

#[test]
fn a_prefix_without_a_successor_reaches_to_the_end() {
    assert_eq!(prefix_successor(b"ab").as_deref(), Some(&b"ac"[..]));
    assert_eq!(prefix_successor(b"a\xff\xff").as_deref(), Some(&b"b"[..]));
    assert_eq!(prefix_successor(b"\xff\xff"), None);
    assert_eq!(prefix_successor(b""), None);
}

/// A cut that emptied the subtree at its beginning and thinned the one at its end used to merge
/// the two before the empty one was removed: a separator was left with nothing on its left, and
/// the next search ran off the end of the node. Only trees of three levels have it, which is why
/// nodes are small in tests.
#[test]
fn a_cut_never_merges_with_an_emptied_neighbour() {
    for rows in 1..400u32 {
        let mut tree = Tree::new();
        (0..rows).for_each(|n| {
            drop(tree.insert(Row::new(&[&b"cut/"[..], &n.to_be_bytes()].concat(), 1)))
        });
        (0..90u32).for_each(|n| {
            drop(tree.insert(Row::new(&[&b"cutting/"[..], &n.to_be_bytes()].concat(), 1)))
        });
        tree.remove_prefix(b"cut/").expect("rows");
        tree.check();
        assert_eq!(tree.len(), 90);
    }
}
