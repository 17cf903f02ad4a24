//! How does a state machine's state travel and rest? (API first; bodies follow.)
pub mod image;
pub mod names;
