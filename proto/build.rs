//! Generates the gRPC code with the vendored `protoc`, so that a fresh machine needs only cargo.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/replication.proto");
    let mut prost = tonic_prost_build::Config::new();
    prost.protoc_executable(protoc_bin_vendored::protoc_bin_path()?);
    tonic_prost_build::configure()
        // Payloads are slices of the network buffer, not copies.
        .bytes(".")
        .compile_with_config(prost, &["proto/replication.proto"], &["proto"])?;
    Ok(())
}
