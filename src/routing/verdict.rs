//! What a failed attempt means.
