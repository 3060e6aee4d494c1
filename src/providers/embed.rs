//! The build script: lists the packs of this folder, so that a new pack is a new file and nothing else.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("src/providers");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder)? {
        if let Some(name) = entry?.file_name().to_str().and_then(|name| name.strip_suffix(".yaml")) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    let mut code = String::from("const BUILT_IN: &[(&str, &str)] = &[\n");
    for name in names {
        let path = folder.join(format!("{name}.yaml"));
        code += &format!("    ({name:?}, include_str!({path:?})),\n");
    }
    code += "];\n";
    fs::write(Path::new(&env::var("OUT_DIR")?).join("packs.rs"), code)?;
    Ok(())
}
