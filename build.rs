//! One word to the linker: equal functions need to be in a release only once. That is 2 % of larderd,
//! whose size has a budget (`make size`). Only where rustc brings its own linker (rust-lld, on 64-bit
//! x86 with glibc) is it known that the word is understood; everywhere else nothing is said.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let var = |name: &str| env::var(name).unwrap_or_default();
    let own_linker = var("TARGET") == "x86_64-unknown-linux-gnu"
        && var("HOST") == var("TARGET")
        && env::var_os("RUSTC_LINKER").is_none()
        && !var("CARGO_ENCODED_RUSTFLAGS").contains("link");
    if own_linker && var("PROFILE") == "release" {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
