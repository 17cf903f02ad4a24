//! Images round-trip, and no damage goes unnoticed.

use bytes::Bytes;
use proptest::prelude::*;
use wire::{ClusterId, Command, Index, KvCommand, KvRowRef, KvVerb, ShardId, Term, limits};

use super::{
    CHUNK_FILL_BYTES, CHUNK_HEADER_BYTES, CONFIGURATION_BYTES_MAX, FOOTER_BYTES, HEADER_BYTES,
    ImageError, ImageLoader, ImageMeta, ImageWriter, header,
};
use crate::{
    fsm::{FEATURE_LEVEL, Fsm, catalog::RegisterRequest, records::RecordOp},
    state::{
        IndexRow, KvRow, Store,
        records::{Check, Service},
        schema::{Kvs, Sessions, Tombstones},
        table::TableDef,
    },
};

const CLUSTER: ClusterId = wire::Uuid([0xc1; 16]);

fn apply(fsm: &mut Fsm, verb: KvVerb, key: &[u8], value: &[u8]) {
    let kv = KvCommand {
        verb,
        key,
        value,
        flags: value.len() as u64,
        index: 0,
        session: b"",
    };
    let index = Index(fsm.applied().0.0 + 1);
    fsm.apply_run(
        &[(index, Term(2), Command::Kv(kv).encode())],
        &mut Vec::new(),
    )
    .expect("a known command");
}

fn small() -> Fsm {
    let mut fsm = Fsm::new();
    for n in 0..9u8 {
        apply(&mut fsm, KvVerb::Set, &[b'k', n], &vec![n; usize::from(n)]);
    }
    apply(&mut fsm, KvVerb::Delete, b"k\x03", b"");
    apply(&mut fsm, KvVerb::DeleteTree, b"k\x04", b"");
    fsm
}

/// A row without what its primary index needs (a session without an id) was taken from an image whose
/// checksums and digests were right, and stood in a table that its own check then refused. (Fuzz
/// target `image`, which seals its edits.)
#[test]
fn a_row_without_its_primary_key_is_refused() {
    let session = crate::state::records::Session::default();
    let bytes = crate::fsm::records::packed(&session);
    let mut builder = crate::state::schema::TablesBuilder::default();
    let refused = builder.push(Sessions::ID, &bytes).unwrap_err();
    assert!(refused.to_string().contains("id"), "{refused}");
}

fn writer(fsm: &Fsm) -> ImageWriter {
    ImageWriter::new(
        fsm.view(),
        CLUSTER,
        ShardId(3),
        Bytes::from_static(b"voters: 1 2 3"),
    )
}

fn pieces(mut writer: ImageWriter, budget: usize) -> Vec<Bytes> {
    let pieces: Vec<Bytes> = std::iter::from_fn(|| writer.next_chunk(budget)).collect();
    assert_eq!(
        writer.written(),
        pieces.iter().map(|piece| piece.len() as u64).sum::<u64>()
    );
    assert_eq!(writer.next_chunk(budget), None);
    pieces
}

fn image(fsm: &Fsm, budget: usize) -> Vec<u8> {
    pieces(writer(fsm), budget).concat()
}

fn load(bytes: &[u8]) -> Result<(Fsm, ImageMeta), ImageError> {
    let mut loader = ImageLoader::new();
    loader.push(bytes)?;
    loader.finish()
}

fn rows(fsm: &Fsm) -> Vec<KvRow> {
    let mut rows = Vec::new();
    let mut list = fsm.store().kv_list(b"", b"", 0);
    while list.next_rows(100, usize::MAX, &mut rows) {}
    rows
}

fn same(a: &Fsm, b: &Fsm) {
    b.store().tables().check();
    assert_eq!(
        (a.applied(), a.digest(), a.feature_level()),
        (b.applied(), b.digest(), b.feature_level())
    );
    assert_eq!(rows(a), rows(b));
    assert_eq!(
        a.store().kv_list(b"k", b"", 0).index(),
        b.store().kv_list(b"k", b"", 0).index()
    );
}

#[test]
fn an_image_gives_the_state_back() {
    let fsm = small();
    let (loaded, meta) = load(&image(&fsm, 64)).expect("whole");
    same(&fsm, &loaded);
    let expected = ImageMeta {
        cluster_id: CLUSTER,
        shard: ShardId(3),
        index: Index(11),
        term: Term(2),
        configuration: Bytes::from_static(b"voters: 1 2 3"),
        feature_level: FEATURE_LEVEL,
        digest: fsm.digest(),
    };
    assert_eq!(&meta, &expected);
    assert_eq!(writer(&fsm).meta(), &expected);
}

#[test]
fn a_loaded_state_goes_on_like_the_one_it_was_taken_from() {
    let mut fsm = small();
    let (mut loaded, _) = load(&image(&fsm, 1000)).expect("whole");
    for machine in [&mut fsm, &mut loaded] {
        apply(machine, KvVerb::Set, b"k\x01", b"new");
        apply(machine, KvVerb::DeleteTree, b"k", b"");
    }
    same(&fsm, &loaded);
}

/// Rows of all kinds of tables, among them the longest record that may be.
#[test]
fn an_image_gives_records_back() {
    let mut fsm = small();
    let mut register = |node: &str, output: usize| {
        let request = RegisterRequest {
            node: node.into(),
            address: "10.0.0.1".into(),
            service: Some(Service {
                service: "web".into(),
                ..Service::default()
            }),
            check: Some(Check {
                check_id: "alive".into(),
                service_id: "web".into(),
                output: "x".repeat(output),
                ..Check::default()
            }),
            ..RegisterRequest::default()
        };
        let index = Index(fsm.applied().0.0 + 1);
        let bytes = RecordOp::Register(request).encode();
        fsm.apply_run(&[(index, Term(2), bytes)], &mut Vec::new())
            .expect("a known command");
    };
    for n in 0..200 {
        register(&format!("n{n}"), n);
    }
    register("long", limits::RECORD_BYTES_MAX - 2048);
    let (loaded, _) = load(&image(&fsm, 1000)).expect("whole");
    same(&fsm, &loaded);
    let tables = loaded.store().tables();
    assert_eq!((tables.nodes.len(), tables.checks.len()), (201, 201));
    assert_eq!(tables.max_index(&["service.web"]), Index(fsm.applied().0.0));
}

#[test]
fn an_empty_state_has_an_image() {
    let fsm = Fsm::new();
    let bytes = image(&fsm, usize::MAX);
    assert_eq!(
        bytes.len(),
        HEADER_BYTES + 13 + FOOTER_BYTES,
        "tables without rows are not listed"
    );
    same(&fsm, &load(&bytes).expect("whole").0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn pieces_may_be_of_any_size(
        values in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..20), 0..3000usize), 0..200),
        budget in 0..200_000usize,
        cuts in prop::collection::vec(1..5000usize, 1..20),
    ) {
        let mut fsm = Fsm::new();
        for (key, length) in &values {
            apply(&mut fsm, KvVerb::Set, key, &vec![7; *length]);
        }
        let bytes = image(&fsm, budget);
        let mut loader = ImageLoader::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            loader.push(piece).expect("undamaged");
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        same(&fsm, &loader.finish().expect("whole").0);
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    let bytes = image(&small(), 100);
    assert!(bytes.windows(4).filter(|window| window == b"CHNK").count() > 3);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = load(&damaged).map(|_| ()).expect_err("a flipped bit");
        assert!(
            !matches!(error, ImageError::Digest { .. }),
            "bit {bit}: {error}: seen only by the last defence"
        );
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = image(&small(), 100);
    for length in 0..bytes.len() {
        let error = load(&bytes[..length]).map(|_| ()).expect_err("incomplete");
        assert_eq!(
            error,
            ImageError::Truncated {
                length: length as u64
            }
        );
    }
}

#[test]
fn what_follows_the_footer_is_an_error() {
    let mut bytes = image(&small(), 100);
    let end = bytes.len() as u64;
    bytes.push(0);
    assert_eq!(
        load(&bytes).map(|_| ()),
        Err(ImageError::Trailing { offset: end })
    );
}

#[test]
fn chunks_out_of_place_are_an_error() {
    let pieces = pieces(writer(&small()), 100);
    let last = pieces.len() - 1;
    for at in 1..last {
        let without: Vec<u8> = pieces
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != at)
            .flat_map(|(_, p)| p.to_vec())
            .collect();
        assert!(
            matches!(load(&without), Err(ImageError::Malformed { .. })),
            "without chunk {at}"
        );
        let mut twice = pieces.clone();
        twice.insert(at, pieces[at].clone());
        assert!(
            matches!(load(&twice.concat()), Err(ImageError::Malformed { .. })),
            "chunk {at} twice"
        );
        if at + 1 < last {
            let mut swapped = pieces.clone();
            swapped.swap(at, at + 1);
            assert!(
                matches!(load(&swapped.concat()), Err(ImageError::Malformed { .. })),
                "chunk {at} late"
            );
        }
    }
}

/// Sets a chunk's fields and makes its checksum right again: what only a wrong writer could make.
fn forged(chunk: &Bytes, forge: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut chunk = chunk.to_vec();
    forge(&mut chunk);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&chunk[..20]), &chunk[CHUNK_HEADER_BYTES..]);
    chunk[20..24].copy_from_slice(&crc.to_le_bytes());
    chunk.into()
}

#[test]
fn a_wrong_writer_is_noticed_too() {
    type Forge = fn(&mut Vec<u8>);
    let cases: &[(&str, Forge)] = &[
        ("no rows", |chunk| chunk[12..16].fill(0)),
        ("fewer rows", |chunk| chunk[12] -= 1),
        ("more rows", |chunk| chunk[12] += 1),
        ("reserved bytes", |chunk| chunk[18] = 1),
        ("unknown table", |chunk| chunk[16] = 200),
        ("a row beyond the chunk", |chunk| {
            chunk[CHUNK_HEADER_BYTES] = 255
        }),
        ("a row that is none", |chunk| {
            chunk[CHUNK_HEADER_BYTES + 4 + 35] = 1
        }),
        ("keys out of order", |chunk| {
            chunk[CHUNK_HEADER_BYTES + 4 + 36] = b'z'
        }),
    ];
    let pieces = pieces(writer(&small()), 100);
    for (case, forge) in cases {
        let mut forged_pieces = pieces.clone();
        forged_pieces[1] = forged(&pieces[1], forge);
        let error = load(&forged_pieces.concat()).map(|_| ()).expect_err(case);
        assert!(
            matches!(error, ImageError::Malformed { .. }),
            "{case}: {error}"
        );
    }
    // A changed value passes every check of form; the digest is for this.
    let mut forged_pieces = pieces.clone();
    forged_pieces[1] = forged(&pieces[1], |chunk| chunk[CHUNK_HEADER_BYTES + 4] ^= 1);
    assert!(matches!(
        load(&forged_pieces.concat()),
        Err(ImageError::Digest { .. })
    ));
}

#[test]
fn other_files_versions_and_levels_are_named() {
    let bytes = image(&small(), 100);
    assert_eq!(
        load(b"something else entirely").map(|_| ()),
        Err(ImageError::NotAnImage)
    );
    let mut newer = bytes.clone();
    newer[8] = 2;
    assert_eq!(
        load(&newer).map(|_| ()),
        Err(ImageError::Version { found: 2 })
    );
    let meta = ImageMeta {
        feature_level: FEATURE_LEVEL + 1,
        ..ImageMeta::default()
    };
    let level = ImageError::FeatureLevel {
        found: FEATURE_LEVEL + 1,
        known: FEATURE_LEVEL,
    };
    assert_eq!(load(&header::encode(&meta, &[])).map(|_| ()), Err(level));
    for tables in [&[(1, 0), (1, 0)][..], &[(1, 0), (9_999, 0)]] {
        let header = header::encode(&ImageMeta::default(), tables);
        assert!(matches!(
            load(&header),
            Err(ImageError::Malformed { what: "header", .. })
        ));
    }
}

#[test]
fn an_error_is_final() {
    let bytes = image(&small(), 100);
    let mut loader = ImageLoader::new();
    let mut damaged = bytes.clone();
    damaged[40] ^= 1;
    let error = loader.push(&damaged).expect_err("damaged");
    assert_eq!(loader.push(&bytes), Err(error.clone()));
    assert_eq!(loader.finish().map(|_| ()), Err(error));
}

#[test]
fn the_longest_rows_and_configurations_fit() {
    let mut store = Store::new();
    let mut txn = store.begin();
    for n in 0..3u8 {
        let key = vec![n; limits::KEY_BYTES_MAX];
        let row = KvRowRef {
            key: &key,
            value: &vec![n; limits::COMMAND_BYTES_MAX - limits::KEY_BYTES_MAX],
            flags: 0,
            create_index: Index(1),
            modify_index: Index(1),
            lock_index: 0,
            session: &[n; 255],
        };
        txn.put::<Kvs>(KvRow::new(row, &mut Vec::new()))
            .expect("fits");
    }
    txn.put::<Tombstones>(IndexRow::new(&[b'x'; limits::KEY_BYTES_MAX], Index(1)))
        .expect("fits");
    txn.commit();
    let fsm = Fsm::from_parts(store, Index(1), Term(1), FEATURE_LEVEL);
    let configuration = Bytes::from(vec![1; CONFIGURATION_BYTES_MAX]);
    let written = pieces(
        ImageWriter::new(fsm.view(), CLUSTER, ShardId(0), configuration),
        CHUNK_FILL_BYTES,
    );
    assert!(
        written
            .iter()
            .all(|piece| piece.len() <= limits::IMAGE_CHUNK_BYTES_MAX)
    );
    same(&fsm, &load(&written.concat()).expect("whole").0);
    // A chunk over the limit is refused before it is waited for.
    let mut loader = ImageLoader::new();
    loader.push(&written[0]).expect("the header");
    let over = (limits::IMAGE_CHUNK_BYTES_MAX - CHUNK_HEADER_BYTES + 1) as u32;
    let start = [&b"CHNK"[..], &over.to_le_bytes()].concat();
    assert!(matches!(
        loader.push(&start),
        Err(ImageError::Malformed { .. })
    ));
}

#[test]
fn an_image_shows_the_moment_it_was_begun() {
    let mut fsm = Fsm::new();
    for n in 0..500u32 {
        apply(&mut fsm, KvVerb::Set, &n.to_be_bytes(), b"before");
    }
    let (digest, mut writer) = (fsm.digest(), writer(&fsm));
    let mut bytes = Vec::new();
    let mut n = 0u32;
    while let Some(piece) = writer.next_chunk(500) {
        bytes.extend_from_slice(&piece);
        apply(
            &mut fsm,
            KvVerb::Set,
            &(n * 7 % 600).to_be_bytes(),
            b"after",
        );
        apply(&mut fsm, KvVerb::Delete, &(n * 11 % 600).to_be_bytes(), b"");
        n += 1;
    }
    let (loaded, _) = load(&bytes).expect("whole");
    assert_eq!((loaded.digest(), loaded.store().kv_len()), (digest, 500));
    assert!(rows(&loaded).iter().all(|row| row.value() == b"before"));
}

/// An image of format version 1 as it was first written. When the format changes, the version is
/// raised and this file stays. `CURIA_WRITE_GOLDEN=1` writes it anew.
#[test]
fn the_golden_image_loads_and_is_what_we_write() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/image/version-1.image");
    let written = image(&small(), 200);
    if std::env::var_os("CURIA_WRITE_GOLDEN").is_some() {
        std::fs::write(path, &written).expect("the golden directory");
    }
    let golden = std::fs::read(path).expect("the golden image");
    assert_eq!(written, golden, "the format changed");
    let (loaded, meta) = load(&golden).expect("whole");
    same(&small(), &loaded);
    assert_eq!(
        meta.digest, 1960912704968520466,
        "the digest is part of the format"
    );
}
