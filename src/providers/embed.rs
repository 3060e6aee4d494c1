//! The build script: reads the packs of this folder and lists them as JSON, which is read far faster than YAML. A new
//! pack is a new file and nothing else; what its words mean is decided by the program and its tests. What only people
//! read of a pack stands apart, so that a gateway does not read it.

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
    let mut code = String::from("const BUILT_IN: &[(&str, &str, &str)] = &[\n");
    for name in names {
        let text = fs::read_to_string(folder.join(format!("{name}.yaml")))?;
        let mut pack: serde_json::Map<String, serde_json::Value> =
            serde_saphyr::from_str(&text).map_err(|error| format!("the pack `{name}`: {error}"))?;
        let mut guide = serde_json::Map::new();
        for key in ["docs", "setup", "samples", "notes"] {
            guide.extend(pack.remove(key).map(|value| (key.to_owned(), value)));
        }
        // Every pack has these two.
        for key in ["docs", "setup"] {
            pack.insert(key.to_owned(), "".into());
        }
        let json = |map| serde_json::Value::Object(map).to_string();
        code += &format!("    ({name:?}, {:?}, {:?}),\n", json(pack), json(guide));
    }
    code += "];\n";
    fs::write(Path::new(&env::var("OUT_DIR")?).join("packs.rs"), code)?;
    Ok(())
}
