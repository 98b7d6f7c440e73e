"""The generator and the map from words to exponentials: known answers, bit-equality, and every one of 2^32 words."""

import math

import pytest
import torch
from conftest import machine_isas

from sampling_argmax_cuda.reference.philox import philox4x32, words

ISAS = machine_isas()
OPS = torch.ops.sampling_argmax
COUNTING = torch.arange(2**20, dtype=torch.int32)

# Random123's tests/kat_vectors for philox4x32 with 10 rounds: counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def numbers(text: str) -> list[torch.Tensor]:
    return [torch.tensor(int(x, 16)) for x in text.split()]


@pytest.mark.parametrize("counter, key, result", KNOWN_ANSWERS)
def test_known_answers(counter, key, result):
    assert [int(x) for x in philox4x32(*numbers(counter), *numbers(key))] == [int(x, 16) for x in result.split()]


@pytest.mark.parametrize("isa", ISAS, indirect=True)
@pytest.mark.parametrize("counter, key, result", KNOWN_ANSWERS)
def test_known_answers_of_kernels(counter, key, result, isa):
    """The counter (c0, c1, c2, c3) is cell group, row, sample, and stream with the row's upper bits above it."""
    c0, c1, c2, c3 = (int(x, 16) for x in counter.split())
    k0, k1 = (int(x, 16) for x in key.split())
    stream, row = c3 & 0xFF, (c3 >> 8) << 32 | c1
    seed = torch.tensor([k1 << 32 | k0], dtype=torch.uint64).view(torch.int64)
    index = torch.tensor([c0 * 4 + i for i in range(4)])
    out = OPS.random_words(seed, torch.full((4,), row), torch.full((4,), c2), index, stream)
    assert out.tolist() == [int(x, 16) for x in result.split()]


def scalar_philox(counter: list[int], key: list[int]) -> list[int]:
    """An implementation on Python integers, straight from the paper's definition."""
    (a, b, c, d), (k0, k1) = counter, key
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q >> 32) ^ b ^ k0, q % 2**32, (p >> 32) ^ d ^ k1, p % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [a, b, c, d]


def test_reference_equals_python_integers():
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randint(0, 2**32, (200, 6), generator=generator)
    for line in numbers:
        expected = scalar_philox(line[:4].tolist(), line[4:].tolist())
        assert [int(x) for x in philox4x32(*line)] == expected


@pytest.mark.parametrize("isa", ISAS, indirect=True)
def test_words_equal_the_reference(isa):
    """2^20 counters a stream set, rows on both sides of 2^32, cells on both sides of 2^31."""
    generator, count = torch.Generator().manual_seed(2), 2**20
    rows = torch.randint(0, 2**40, (count,), generator=generator)
    rows[::2] %= 2**16
    samples = torch.randint(0, 2**20, (count,), generator=generator)
    index = torch.randint(0, 2**33, (count,), generator=generator)
    index[::3] %= 3072
    for stream, seed in ((0, 5), (3, -(2**62) + 12345)):
        seed = torch.tensor([seed])
        expected = words(seed[0], rows, samples, index, stream)
        assert torch.equal(OPS.random_words(seed, rows, samples, index, stream), expected)


def check_exponentials(first: int, count: int) -> tuple[float, float]:
    """E of the words [first, first + count): positive, finite and rising; the smallest and the largest.

    Rising leaves out NaN, and makes the first the smallest and the last the largest.
    """
    e = OPS.exponential(COUNTING[:count] + (first if first < 2**31 else first - 2**32))  # modulo 2^32
    assert (e[1:] - e[:-1]).min() >= 0  # two thirds faster than to compare; a difference keeps its sign however small
    if first < 2**26:
        exact = -torch.log1p(-(torch.arange(first, first + count).double() + 0.5) / 2**32) / math.log(2)
        assert ((e.double() - exact).abs() / exact).max() <= 4e-5
    smallest, largest = e[0].item(), e[-1].item()
    assert 0 < smallest and largest < math.inf
    return smallest, largest


def test_exponential_of_every_word():
    """All 2^32 words; E is in base 2, so that the largest Gumbel is -log(E ln 2)."""
    chunk, last = 2**18, 0.0  # a chunk's numbers stay in the processor's cache
    for first in range(0, 2**32, chunk):
        low, high = check_exponentials(first, chunk)
        assert low >= last
        last = high
    assert -torch.log(torch.tensor(check_exponentials(0, chunk)[0] * 0.6931471805599453)) >= 22
    assert 32.9 < last <= 33.1


@pytest.mark.parametrize("isa", ISAS, indirect=True)
@pytest.mark.parametrize("first", [0, 2**25 - 2**19, 2**31 - 2**19, 2**32 - 2**20])
def test_exponential_of_each_isa(first, isa):
    """Where the map changes its formula: both ends, the end of the series, and the change of sign."""
    check_exponentials(first, 2**20)
