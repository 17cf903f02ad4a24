//! How is a flatbuffer verified and read, the same way for every table?
//!
//! Verification happens once, with limits of our own instead of the library's defaults (which
//! would let a frame describe gigabytes). After it, the typed decoders still check ranges: the
//! verifier knows the shape of a table, not its meaning.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use flatbuffers::{
    FlatBufferBuilder, Follow, ForwardsUOffset, Vector, Verifiable, VerifierOptions, WIPOffset,
};

use crate::{Index, Term, Uuid, WireError, limits};

/// Deepest nesting of our schema is 3 (frame table, union member, row).
const TABLE_DEPTH_MAX: usize = 8;

/// The verifier adds up what it visits, and tables may share what they point to: a small frame
/// could describe a huge tree. Shared table layouts, which are honest, make no message of ours
/// look more than three times as long as it is.
const APPARENT_RATIO_MAX: usize = 4;
/// Room for the layouts of a very short message, bytes.
const APPARENT_BYTES_BASE: usize = 1024;

/// An encoding scratch buffer larger than this is not kept for the next message, bytes.
const SCRATCH_BYTES_KEPT_MAX: usize = 256 * 1024;

/// Verifies `bytes` and returns the root table; `what` names it in the error.
pub(crate) fn root<'a, T>(what: &'static str, bytes: &'a [u8]) -> Result<T::Inner, WireError>
where
    T: Follow<'a> + Verifiable + 'a,
    ForwardsUOffset<T>: Follow<'a, Inner = T::Inner>,
{
    let options = VerifierOptions {
        max_depth: TABLE_DEPTH_MAX,
        max_tables: limits::TABLES_PER_FRAME_MAX,
        max_apparent_size: APPARENT_BYTES_BASE + APPARENT_RATIO_MAX * bytes.len(),
        ignore_missing_null_terminator: false,
    };
    flatbuffers::root_with_opts::<T>(&options, bytes).map_err(|error| malformed(what, error))
}

/// A vector of tables, each of which takes at least `element_bytes` of `bytes` if it is honest.
///
/// Elements may point to one shared table; without this check the decoded list could be many
/// times longer than what came.
pub(crate) fn elements<'a, T>(
    what: &'static str,
    bytes: &[u8],
    elements: Option<Vector<'a, ForwardsUOffset<T>>>,
    element_bytes: usize,
) -> Result<impl ExactSizeIterator<Item = T::Inner> + use<'a, T>, WireError>
where
    T: Follow<'a> + 'a,
    ForwardsUOffset<T>: Follow<'a, Inner = T::Inner>,
{
    let elements = elements.unwrap_or_default();
    if elements.len() > bytes.len() / element_bytes {
        let (count, length) = (elements.len(), bytes.len());
        let why = format_args!("{count} elements do not fit {length} bytes");
        return Err(malformed(what, why));
    }
    Ok(elements.into_iter())
}

/// The error for a table that the verifier accepts and that still makes no sense.
pub(crate) fn malformed(what: &'static str, why: impl std::fmt::Display) -> WireError {
    WireError::Malformed {
        what,
        why: why.to_string(),
    }
}

/// Refuses what is longer than its limit.
pub(crate) fn at_most(what: &'static str, found: usize, max: usize) -> Result<(), WireError> {
    if found > max {
        return Err(WireError::TooLarge {
            what,
            found: found as u64,
            max: max as u64,
        });
    }
    Ok(())
}

/// A byte field; absent is empty.
pub(crate) fn field<'a>(bytes: Option<Vector<'a, u8>>) -> &'a [u8] {
    bytes.map_or(&[], |vector| vector.bytes())
}

/// A byte field as a view of the buffer it lies in.
pub(crate) fn shared(whole: &Bytes, part: Option<Vector<'_, u8>>) -> Bytes {
    whole.slice_ref(field(part))
}

/// A text field of bounded length; absent is empty.
pub(crate) fn text(
    what: &'static str,
    text: Option<&str>,
    max: usize,
) -> Result<String, WireError> {
    let text = text.unwrap_or_default();
    at_most(what, text.len(), max)?;
    Ok(text.to_owned())
}

/// At most `max` bytes of a sentence that somebody else wrote.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// A 16-byte name; absent is nil.
pub(crate) fn uuid(what: &'static str, bytes: Option<Vector<'_, u8>>) -> Result<Uuid, WireError> {
    match field(bytes) {
        [] => Ok(Uuid::default()),
        bytes => Uuid::from_slice(bytes).ok_or_else(|| {
            malformed(
                what,
                format_args!("an id of {} bytes instead of 16", bytes.len()),
            )
        }),
    }
}

/// A log index within its range.
pub(crate) fn index(what: &'static str, n: u64) -> Result<Index, WireError> {
    if n > limits::INDEX_MAX {
        return Err(malformed(what, format_args!("index {n} is out of range")));
    }
    Ok(Index(n))
}

/// A term within its range.
pub(crate) fn term(what: &'static str, n: u64) -> Result<Term, WireError> {
    if n > limits::INDEX_MAX {
        return Err(malformed(what, format_args!("term {n} is out of range")));
    }
    Ok(Term(n))
}

/// A scratch builder that grows as needed.
pub(crate) type Builder = FlatBufferBuilder<'static>;

/// Builds a byte field.
///
/// As a byte string, which is a byte vector with a zero behind it: the library copies that in one
/// go, where `create_vector` goes byte by byte and takes most of the time of encoding a command.
pub(crate) fn put(builder: &mut Builder, bytes: &[u8]) -> WIPOffset<Vector<'static, u8>> {
    WIPOffset::new(builder.create_byte_string(bytes).value())
}

/// Builds a byte field that is left out when it is empty.
pub(crate) fn put_some(
    builder: &mut Builder,
    bytes: &[u8],
) -> Option<WIPOffset<Vector<'static, u8>>> {
    (!bytes.is_empty()).then(|| put(builder, bytes))
}

thread_local! {
    static SCRATCH: Cell<Option<Builder>> = const { Cell::new(None) };
}

/// Runs `encode` with this thread's scratch builder, empty.
///
/// The builder is taken out while it is used, so that an encoder that is entered again from an
/// iterator of its caller's merely pays for a builder of its own.
pub(crate) fn with_scratch<R>(encode: impl FnOnce(&mut Builder) -> R) -> R {
    let mut builder = SCRATCH.take().unwrap_or_default();
    builder.reset();
    let result = encode(&mut builder);
    if builder.unfinished_data().len() <= SCRATCH_BYTES_KEPT_MAX {
        SCRATCH.set(Some(builder));
    }
    result
}

/// Encodes with the scratch builder into an allocation of exactly the right size.
pub(crate) fn encoded(encode: impl FnOnce(&mut Builder)) -> Bytes {
    with_scratch(|builder| {
        encode(builder);
        Bytes::copy_from_slice(builder.finished_data())
    })
}

/// Appends what `encode` wrote to `out`.
pub(crate) fn encoded_into(
    builder: &mut Builder,
    out: &mut BytesMut,
    encode: impl FnOnce(&mut Builder),
) {
    builder.reset();
    encode(builder);
    out.extend_from_slice(builder.finished_data());
}
