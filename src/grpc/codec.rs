//! The codec of the contract: prost with a small buffer. tonic's default of 8 KiB per call is most of the memory of a
//! silent stream.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// Initial size of the buffer, enough for a delta. The buffer grows for larger messages.
const BUFFER_BYTES: usize = 256;

/// Encoded bytes after which tonic sends a chunk. The same as tonic's default.
const CHUNK_BYTES: usize = 32 * 1024;

/// The codec of all methods of the contract, selected by `build.rs`.
#[derive(Debug)]
pub struct SmallCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER_BYTES, CHUNK_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER_BYTES, CHUNK_BYTES))
    }
}
