//! What do filters promise?

mod errors;
mod examples;
mod limits;
mod model;
