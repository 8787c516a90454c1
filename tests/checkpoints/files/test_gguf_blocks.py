"""Every block format of GGUF files against its definition, number by number as llama.cpp's C code computes it.

Source of layouts and arithmetic: llama.cpp, ggml/src/ggml-common.h (block_*) and ggml-quants.c (dequantize_row_*).
"""

import struct

import gguf_files
import numpy as np
import pytest

from tfxformer.checkpoints.files.gguf import GGUFFile

gguf = pytest.importorskip("gguf")

ROWS, BLOCKS = 3, 2
ONE = np.float32
NON_LINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # kvalues_iq4nl


def half(data, at):
    return ONE(struct.unpack_from("<e", data, at)[0])


def signed(byte):
    return byte - 256 if byte > 127 else byte


def q4_0(b):
    d, q = half(b, 0), b[2:]
    return [d * ((x & 15) - 8) for x in q] + [d * ((x >> 4) - 8) for x in q]


def q4_1(b):
    d, m, q = half(b, 0), half(b, 2), b[4:]
    return [(x & 15) * d + m for x in q] + [(x >> 4) * d + m for x in q]


def fifth(bits, j):
    """The fifth bit of number j of 32, which a word of its own holds."""
    return (bits >> j & 1) << 4


def q5_0(b):
    d, bits, q = half(b, 0), int.from_bytes(b[2:6], "little"), b[6:]
    first = [d * ((x & 15 | fifth(bits, j)) - 16) for j, x in enumerate(q)]
    return first + [d * ((x >> 4 | fifth(bits, j + 16)) - 16) for j, x in enumerate(q)]


def q5_1(b):
    d, m, bits, q = half(b, 0), half(b, 2), int.from_bytes(b[4:8], "little"), b[8:]
    first = [(x & 15 | fifth(bits, j)) * d + m for j, x in enumerate(q)]
    return first + [(x >> 4 | fifth(bits, j + 16)) * d + m for j, x in enumerate(q)]


def q8_0(b):
    return [half(b, 0) * signed(x) for x in b[2:]]


def q2_k(b):
    scales, quants, d, least = b[:16], b[16:80], half(b, 80), half(b, 82)
    out = []
    for n in range(2):
        for shift in (0, 2, 4, 6):
            for part in range(2):
                scale = scales[8 * n + shift + part]
                step, low = d * (scale & 15), least * (scale >> 4)
                q = quants[32 * n + 16 * part : 32 * n + 16 * part + 16]
                out += [step * (x >> shift & 3) - low for x in q]
    return out


def q3_scale(packed, i):
    """Six bits: four in the first eight bytes, two in the last four."""
    low = packed[i % 8] >> (4 if i >= 8 else 0) & 15
    high = packed[8 + i % 4] >> 2 * (i // 4) & 3
    return (low | high << 4) - 32


def q3_k(b):
    mask, quants, packed, d = b[:32], b[32:96], b[96:108], half(b, 108)
    out = []
    for n in range(2):
        for j in range(4):
            for part in range(2):
                step = d * q3_scale(packed, 8 * n + 2 * j + part)
                for l in range(16 * part, 16 * part + 16):
                    high = 0 if mask[l] >> 4 * n + j & 1 else 4
                    out.append(step * ((quants[32 * n + l] >> 2 * j & 3) - high))
    return out


def scale_and_least(packed, j):
    """get_scale_min_k4."""
    if j < 4:
        return packed[j] & 63, packed[j + 4] & 63
    return packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4


def q4_k(b, fifths=None, first=16):
    d, least, packed, quants = half(b, 0), half(b, 2), b[4:16], b[first:]
    out = []
    for j in range(8):
        scale, low = scale_and_least(packed, j)
        for l in range(32):
            x = quants[32 * (j // 2) + l] >> 4 * (j % 2) & 15
            x += 16 * (fifths[l] >> j & 1) if fifths is not None else 0
            out.append(d * scale * x - least * low)
    return out


def q5_k(b):
    return q4_k(b, fifths=b[16:48], first=48)


def q6_k(b):
    low, high, scales, d = b[:128], b[128:192], b[192:208], half(b, 208)
    out = []
    for n in range(2):
        for quarter in range(4):
            for l in range(32):
                four = low[64 * n + 32 * (quarter % 2) + l] >> 4 * (quarter // 2) & 15
                x = (four | (high[32 * n + l] >> 2 * quarter & 3) << 4) - 32
                out.append(d * signed(scales[8 * n + 2 * quarter + l // 16]) * x)
    return out


def iq4_nl(b):
    d, q = half(b, 0), b[2:]
    return [d * NON_LINEAR[x & 15] for x in q] + [d * NON_LINEAR[x >> 4] for x in q]


def iq4_xs(b):
    d, high, low, quants = half(b, 0), int.from_bytes(b[2:4], "little"), b[4:8], b[8:]
    out = []
    for j in range(8):
        scale = (low[j // 2] >> 4 * (j % 2) & 15 | (high >> 2 * j & 3) << 4) - 32
        q = quants[16 * j : 16 * j + 16]
        out += [d * scale * NON_LINEAR[x & 15] for x in q] + [d * scale * NON_LINEAR[x >> 4] for x in q]
    return out


FORMATS = {
    "Q4_0": (q4_0, [0]),
    "Q4_1": (q4_1, [0, 2]),
    "Q5_0": (q5_0, [0]),
    "Q5_1": (q5_1, [0, 2]),
    "Q8_0": (q8_0, [0]),
    "Q2_K": (q2_k, [80, 82]),
    "Q3_K": (q3_k, [108]),
    "Q4_K": (q4_k, [0, 2]),
    "Q5_K": (q5_k, [0, 2]),
    "Q6_K": (q6_k, [208]),
    "IQ4_NL": (iq4_nl, [0]),
    "IQ4_XS": (iq4_xs, [0]),
}


def random_blocks(kind, halves, count, seed=0):
    """Random bytes, but for the scales, which are float16 numbers of either sign."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (count, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    for at in halves:
        blocks[:, at : at + 2] = generator.normal(size=(count, 1)).astype(np.float16).view(np.uint8)
    return blocks


def in_file(path, kind, blocks):
    """A GGUF file of one tensor of these blocks, ROWS of BLOCKS."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("x", blocks.reshape(ROWS, -1), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GGUFFile(path)


@pytest.mark.parametrize("name", FORMATS)
def test_blocks_are_what_the_format_says(name, tmp_path):
    decode, halves = FORMATS[name]
    kind = gguf.GGMLQuantizationType[name]
    blocks = random_blocks(kind, halves, ROWS * BLOCKS)
    read = in_file(tmp_path / "x.gguf", kind, blocks)
    wanted = np.array([[float(number) for number in decode(block.tobytes())] for block in blocks])
    assert read.shape("x") == (ROWS, BLOCKS * gguf.GGML_QUANT_SIZES[kind][0]) and read["x"].dtype == np.float32
    np.testing.assert_allclose(read["x"].ravel(), wanted.ravel(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_what_the_package_quantizes_is_near_its_source(name, tmp_path):
    """The definition above, on blocks that have a source: steps of a block are its range by 15, 31 or 255."""
    kind, source = gguf.GGMLQuantizationType[name], np.random.default_rng(1).normal(size=(ROWS, 64)).astype("float32")
    read = in_file(tmp_path / "x.gguf", kind, gguf.quants.quantize(source, kind))["x"]
    steps = {"Q4": 7, "Q5": 15, "Q8": 127}[name[:2]]
    assert np.abs(read - source).max() <= np.abs(source).max() / steps


@pytest.mark.parametrize("name", ["IQ1_S", "IQ2_XXS", "IQ3_S", "TQ1_0"])
def test_formats_of_code_books_are_read_as_the_package_reads_them(name, tmp_path):
    """Their tables are the package's: another definition would be a copy of them."""
    kind = gguf.GGMLQuantizationType[name]
    blocks = random_blocks(kind, [], ROWS * BLOCKS)
    read = in_file(tmp_path / "x.gguf", kind, blocks)["x"]
    np.testing.assert_array_equal(read, gguf.quants.dequantize(blocks.reshape(ROWS, -1), kind))


def test_k_quants_of_a_whole_model(tmp_path):
    """A file as llama.cpp's Q4_K_M has them: rows of 256, q4 in most, q6 in the head's, norms in float32."""
    tensors = gguf_files.llama_tensors()
    q4, q6 = gguf.GGMLQuantizationType.Q4_K, gguf.GGMLQuantizationType.Q6_K
    stored = {
        "token_embd.weight": (q6, random_blocks(q6, [208], 40).reshape(40, -1)),
        "blk.0.ffn_down.weight": (q4, random_blocks(q4, [0, 2], 64, seed=1).reshape(64, -1)),
    }
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    for name, array in tensors.items():
        kind, data = stored.get(name, (gguf.GGMLQuantizationType.F32, array))
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = GGUFFile(tmp_path / "m.gguf")
    assert list(read) == list(tensors)
    for name, array in tensors.items():
        if name in stored:
            kind, data = stored[name]
            decode = {q4: q4_k, q6: q6_k}[kind]
            wanted = np.array([decode(row.tobytes()) for row in data], "float32")
            np.testing.assert_allclose(read[name], wanted, rtol=1e-6, atol=1e-6)
        else:
            np.testing.assert_array_equal(read[name], array)
