//! YAML text to [`super::schema::Config`], with every mistake and not only the first.
