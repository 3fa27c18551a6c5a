//! Generates the parser from `src/syntax/grammar.lalrpop` into the build folder.

fn main() {
    if let Err(error) = lalrpop::Configuration::new().use_cargo_dir_conventions().emit_rerun_directives(true).process() {
        eprintln!("{error}");
        std::process::exit(1);
    }
    println!("cargo::rerun-if-changed=build.rs");
}
