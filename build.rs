//! Compiles the contract without `protoc` and keeps its descriptor set for reflection.

use std::{env, error::Error, fs, path::PathBuf};

#[expect(clippy::disallowed_methods, reason = "this is how cargo speaks to a build script")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(["codex/v1/codex.proto", "codex/v1/responses.proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;
    // The client is for the tests and for whoever embeds this crate.
    tonic_prost_build::configure()
        .build_client(true)
        .build_transport(false)
        .bytes(".codex.v1.Image.data")
        .bytes(".codex.v1.File.data")
        // By far the largest event, and one of the rarest.
        .boxed(".codex.v1.ChatEvent.event.item")
        .boxed(".codex.v1.ResponseEvent.event.created")
        .boxed(".codex.v1.ResponseEvent.event.in_progress")
        .boxed(".codex.v1.ResponseEvent.event.completed")
        .boxed(".codex.v1.ResponseEvent.event.incomplete")
        .boxed(".codex.v1.ResponseEvent.event.output_item_added")
        .boxed(".codex.v1.ResponseEvent.event.output_item_done")
        .boxed(".codex.v1.ResponseEvent.event.activity")
        .codec_path("crate::grpc::codec::SmallCodec")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
