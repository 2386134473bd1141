//! The `tollgate` program; everything is in the library.

use std::process::ExitCode;

use tollgate::allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    tollgate::cli::run()
}
