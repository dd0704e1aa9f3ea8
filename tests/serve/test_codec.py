"""Arrow bodies from strangers: compressed ones are taken, and none expands to what the endpoint cannot hold."""

import numpy as np
import pyarrow as pa
import pytest

from refiner import UserError
from serve import codec
from serve.codec.arrow import EXPANDED_BYTES
from serve.live import standing_poses


def stream(columns: dict[str, pa.Array], **options) -> bytes:
    data = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, data.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(data)
    return sink.getvalue().to_pybytes()


def poses_column(poses: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(poses.reshape(-1)), int(np.prod(poses.shape[1:])))


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_compressed_streams_are_read(compression):
    poses = standing_poses(300)
    body = stream({"poses": poses_column(poses)}, compression=compression)
    np.testing.assert_array_equal(codec.ArrowCodec().decode(body).poses, poses)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_small_body_that_expands_to_gigabytes_is_refused_before_it_takes_memory(compression):
    size = EXPANDED_BYTES // (51 * 4) + 1
    body = bytearray(stream({"poses": poses_column(np.zeros((size, 17, 3), np.float32))}, compression=compression))
    assert len(body) < EXPANDED_BYTES / 100
    claimed = (size * 51 * 4).to_bytes(8, "little")
    assert body.count(claimed) == 1
    taken = pa.total_allocated_bytes()
    for claim in (size * 51 * 4, 1 << 40):  # as it is, and with a lie about its length
        with pytest.raises(UserError, match=f"decompress to {claim:,} bytes"):
            codec.ArrowCodec().decode(bytes(body.replace(claimed, claim.to_bytes(8, "little"))))
    # a length that claims less than there is: the decompressor keeps to it
    with pytest.raises(UserError, match="not an Arrow IPC stream"):
        codec.ArrowCodec().decode(bytes(body.replace(claimed, (1000).to_bytes(8, "little"))))
    assert pa.total_allocated_bytes() - taken < 1_000_000


def test_many_small_batches_count_together():
    data = pa.record_batch({"poses": poses_column(np.zeros((16_384, 17, 3), np.float32))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, data.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        for _ in range(30):
            writer.write_batch(data)
    with pytest.raises(UserError, match="decompress to"):
        codec.ArrowCodec().decode(sink.getvalue().to_pybytes())


def test_dictionaries_are_refused():
    words = pa.array(["a", "b"] * 10).dictionary_encode()
    with pytest.raises(UserError, match="dictionary"):
        codec.ArrowCodec().decode(stream({"poses": poses_column(standing_poses(20)), "word": words}))


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_damaged_stream_is_a_user_error_or_none(compression, rng):
    good = stream({"poses": poses_column(standing_poses(40))}, compression=compression)
    refused = 0
    for _ in range(1500):
        body = np.frombuffer(good, np.uint8).copy()
        where = rng.integers(0, min(len(body), 700), rng.integers(1, 9))  # the head, where names and lengths are
        body[where] = rng.integers(0, 256, len(where))
        try:
            codec.ArrowCodec().decode(body.tobytes())
        except UserError:
            refused += 1
    assert refused > 100
    # a column's name that is not UTF-8
    with pytest.raises(UserError, match="not an Arrow IPC stream"):
        codec.ArrowCodec().decode(good.replace(b"poses", b"po\xf8es"))
