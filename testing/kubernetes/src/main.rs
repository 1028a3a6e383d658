//! Checks the resources of CloudNativePG and of its Barman Cloud plugin against these projects' own
//! types: `custom-resources < RESOURCES.json`, an array. Prints each mistake, and exits with 1 if
//! there is one.
//!
//! Invariant: every field must be known. The types ignore unknown ones, as do servers that are
//! asked to; a misspelt field would then have no effect.

use std::io;
use std::process::ExitCode;

use kcr_barmancloud_cnpg_io::v1::objectstores::ObjectStore;
use kcr_postgresql_cnpg_io::v1::clusters::Cluster;
use kcr_postgresql_cnpg_io::v1::scheduledbackups::ScheduledBackup;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn main() -> ExitCode {
    let resources: Vec<Value> = match serde_json::from_reader(io::stdin()) {
        Ok(resources) => resources,
        Err(error) => {
            eprintln!("standard input is no array of resources: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mistakes: Vec<String> = resources.iter().flat_map(mistakes).collect();
    for mistake in &mistakes {
        println!("{mistake}");
    }
    println!("{} custom resources checked, {} mistakes", resources.len(), mistakes.len());
    if mistakes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is wrong with a resource, each with its name and the path of the field.
fn mistakes(resource: &Value) -> Vec<String> {
    let text = |path: &str| resource.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("/apiVersion"), text("/kind"));
    let found = match (version, kind) {
        ("postgresql.cnpg.io/v1", "Cluster") => unknown_fields::<Cluster>(resource),
        ("postgresql.cnpg.io/v1", "ScheduledBackup") => unknown_fields::<ScheduledBackup>(resource),
        ("barmancloud.cnpg.io/v1", "ObjectStore") => unknown_fields::<ObjectStore>(resource),
        _ => Err(format!("there is no type for {version}")),
    };
    let found = match found {
        Ok(unknown) => unknown.iter().map(|field| format!("unknown field {field}")).collect(),
        Err(error) => vec![error],
    };
    let name = text("/metadata/name");
    found.iter().map(|mistake| format!("{kind} {name}: {mistake}")).collect()
}

/// The paths of the fields that the type does not have, apart from those that all resources have.
///
/// # Errors
/// A field is missing, or has another type.
fn unknown_fields<T: DeserializeOwned>(resource: &Value) -> Result<Vec<String>, String> {
    let mut unknown = Vec::new();
    serde_ignored::deserialize::<_, _, T>(resource, |path| unknown.push(path.to_string()))
        .map_err(|error| error.to_string())?;
    unknown.retain(|field| !["apiVersion", "kind"].contains(&field.as_str()));
    Ok(unknown)
}
