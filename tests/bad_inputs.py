"""Broken, odd and hostile images, masks and checkpoints, by what is wrong with them."""

import json
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

Content = Callable[[], bytes]
State = dict[str, torch.Tensor]
SIZE = (36, 48)  # height, width
PAYLOAD = "payload-ran"  # the file that a hostile input would create
SECRET = "nobody-shall-read-this"


def noise(channels: int = 3) -> NDArray[np.uint8]:
    """Return pixels (H, W, channels), the same at each call."""
    return np.random.default_rng(0).integers(0, 256, (*SIZE, channels), dtype=np.uint8)


def encode(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format=form, **options)
    return buffer.getvalue()


def jpeg() -> bytes:
    return encode(Image.fromarray(noise()), "JPEG", quality=90)


def png(
    bits: int, color: int, rows: list[bytes], size: tuple[int, int], extra: bytes = b""
) -> bytes:
    """Return a PNG by the book, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", size[1], size[0], bits, color, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def cut(content: bytes, share: float) -> bytes:
    return content[: int(share * len(content))]


def flip(content: bytes, at: float, bit: int = 3) -> bytes:
    position = int(at * len(content))
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


def jpeg_of_size(width: int, height: int) -> bytes:
    """Return a JPEG whose header claims another size."""
    content = bytearray(jpeg())
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def frames(form: str) -> bytes:
    pictures = [Image.fromarray(np.roll(noise(), step, axis=0)) for step in range(3)]
    return encode(pictures[0], form, save_all=True, append_images=pictures[1:])


def tiff_bomb() -> bytes:
    """Return a TIFF that says that it has more pixels than its file could hold."""
    content = bytearray(encode(Image.fromarray(noise()), "TIFF"))
    for tag in (256, 257):  # width and height: tag, type, count, value
        start = content.index(struct.pack("<HH", tag, 4))
        content[start + 8 : start + 12] = struct.pack("<I", 60000)
    return bytes(content)


POSTSCRIPT = (
    f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 36\n%%EndComments\n"
    f"({PAYLOAD}) (w) file closefile showpage\n%%EOF\n"
).encode()

BAD_IMAGES: dict[str, Content] = {
    **{f"jpeg-cut-{s}": (lambda s=s: cut(jpeg(), s)) for s in (0.0, 0.02, 0.3, 0.6, 0.95)},
    **{
        f"png-cut-{s}": (lambda s=s: cut(encode(Image.fromarray(noise()), "PNG"), s))
        for s in (0.004, 0.1, 0.5, 0.99)
    },
    **{
        f"png-flipped-{s}": (lambda s=s: flip(encode(Image.fromarray(noise()), "PNG"), s))
        for s in (0.0, 0.003, 0.2, 0.5, 0.99)
    },
    "jpeg-flipped-marker": lambda: flip(jpeg(), 0.0, 0),
    "text": lambda: b"a photograph of a cat\n",
    "html": lambda: b"<!DOCTYPE html><title>404 Not Found</title>",
    "zeros": lambda: bytes(2000),
    "jpeg-claims-65500x65500": lambda: jpeg_of_size(65500, 65500),
    "jpeg-claims-10000x10000": lambda: jpeg_of_size(10000, 10000),
    "jpeg-claims-0x0": lambda: jpeg_of_size(0, 0),
    "png-claims-100000x100000": lambda: png(8, 2, [b""], (100000, 100000)),
    "png-claims-2^31": lambda: png(8, 0, [b""], (2**31 - 1, 2**31 - 1)),
    "tiff-claims-60000x60000": tiff_bomb,
    "one-row-of-20000": lambda: encode(Image.new("RGB", (20000, 1)), "PNG"),
    "grey-16-bit": lambda: encode(Image.fromarray(np.full(SIZE, 1000, np.uint16)), "PNG"),
    "float-tiff": lambda: encode(Image.fromarray(np.full(SIZE, 0.5, np.float32)), "TIFF"),
    "animated-gif": lambda: frames("GIF"),
    "animated-png": lambda: frames("PNG"),
    "animated-webp": lambda: frames("WEBP"),
    "two-page-tiff": lambda: frames("TIFF"),
    "postscript": lambda: POSTSCRIPT,
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="48" height="36"/>',
    "icon": lambda: encode(Image.fromarray(noise()), "ICO"),
}


def palette() -> bytes:
    return encode(Image.fromarray(noise()).quantize(8), "PNG")


def deep_color() -> bytes:
    """Return a colour PNG of 16 bits a channel: the upper byte is noise, the lower 255."""
    rows = [bytes(v for pixel in row.ravel() for v in (pixel, 255)) for row in noise()]
    return png(16, 2, rows, SIZE)


def _grey() -> NDArray[np.uint8]:
    return np.repeat(noise(1), 3, axis=2)


# What is read as a user would expect: the content, the pixels, and how far they may be off.
GOOD_IMAGES: dict[str, tuple[Content, Callable[[], NDArray[np.uint8]], int]] = {
    "cmyk-jpeg": (
        lambda: encode(Image.new("CMYK", SIZE[::-1], (0, 255, 255, 0)), "JPEG", quality=100),
        lambda: np.full((*SIZE, 3), (255, 0, 0), np.uint8),
        6,
    ),
    "grey-jpeg": (
        lambda: encode(Image.fromarray(noise(1)[:, :, 0]), "JPEG", quality=100),
        _grey,
        4,
    ),
    "grey-png": (lambda: encode(Image.fromarray(noise(1)[:, :, 0]), "PNG"), _grey, 0),
    "palette-png": (
        palette,
        lambda: np.asarray(Image.fromarray(noise()).quantize(8).convert("RGB")),
        0,
    ),
    "rgba-png": (lambda: encode(Image.fromarray(noise(4)), "PNG"), lambda: noise(4)[:, :, :3], 0),
    "webp": (lambda: encode(Image.fromarray(noise()), "WEBP", lossless=True), noise, 0),
    "bmp": (lambda: encode(Image.fromarray(noise()), "BMP"), noise, 0),
    "16-bit-color-png": (deep_color, noise, 0),
    "bilevel-png": (
        lambda: encode(Image.new("1", SIZE[::-1], 1), "PNG"),
        lambda: np.full((*SIZE, 3), 255, np.uint8),
        0,
    ),
}

LABELS = np.zeros(SIZE, np.uint8)
LABELS[4:20, 4:30] = 12


def mask(labels: NDArray[np.uint8] = LABELS, form: str = "PNG", **options: Any) -> bytes:
    return encode(Image.fromarray(labels), form, **options)


def with_label(label: int) -> bytes:
    labels = LABELS.copy()
    labels[5, 5] = label
    return mask(labels)


def colored() -> Image.Image:
    return Image.fromarray(np.where(LABELS[..., None] > 0, (64, 0, 128), 0).astype(np.uint8))


BAD_MASKS: dict[str, Content] = {
    "another-size": lambda: mask(LABELS[:-1]),
    "transposed": lambda: mask(np.ascontiguousarray(LABELS.T)),
    **{f"label-{label}": (lambda label=label: with_label(label)) for label in (21, 22, 99, 254)},
    "16-bit": lambda: encode(Image.fromarray(LABELS.astype(np.uint16)), "PNG"),
    "colors": lambda: encode(colored(), "PNG"),
    "colors-with-alpha": lambda: encode(colored().convert("RGBA"), "PNG"),
    "grey-with-alpha": lambda: encode(Image.fromarray(LABELS).convert("LA"), "PNG"),
    "bilevel": lambda: encode(Image.new("1", SIZE[::-1]), "PNG"),
    "grey-4-bit": lambda: png(4, 0, [b"\x11" * (SIZE[1] // 2)] * SIZE[0], SIZE),
    "grey-2-bit": lambda: png(2, 0, [b"\x55" * (SIZE[1] // 4)] * SIZE[0], SIZE),
    "jpeg": lambda: mask(form="JPEG"),
    "gif": lambda: mask(form="GIF"),
    "animated": lambda: frames("PNG"),
    "empty": lambda: b"",
    "text": lambda: b"0 0 0 12 12\n",
    **{f"cut-{s}": (lambda s=s: cut(mask(), s)) for s in (0.1, 0.5, 0.85)},
    **{f"flipped-{s}": (lambda s=s: flip(mask(), s)) for s in (0.2, 0.6, 0.8)},
    "claims-100000x100000": lambda: png(8, 0, [b""], (100000, 100000)),
}

BAD_LISTS: dict[str, bytes] = {
    "empty": b"",
    "blank-lines": b"\n \r\n\t\n",
    "missing-image": b"train_0\nabsent\n",
    "twice": b"train_0\ntrain_1\ntrain_0\n",
    "absolute": b"/etc/passwd\n",
    "parent": b"../../secret\n",
    "backslash": b"..\\secret\n",
    "hidden": b".train_0\n",
    "nul": b"train_0\ntrain\0_1\n",
    "escape": b"train_0\n\x1b[2Jtrain_1\n",
    "latin-1": b"train_0\ncaf\xe9\n",
    "utf-16": "train_0\ntrain_1\n".encode("utf-16"),
    "two-columns": b"train_0 1\ntrain_1 -1\n",
    "long": b"x" * 5000 + b"\n",
}
GOOD_LISTS: dict[str, bytes] = {
    "crlf": b"train_0\r\ntrain_1\r\n",
    "blank-lines": b"\ntrain_0\n\n  train_1  \n\n",
    "byte-order-mark": b"\xef\xbb\xbftrain_0\ntrain_1\n",
    "no-last-newline": b"train_0\ntrain_1",
}


class Payload:
    """Creates a file when it is unpickled by whoever runs what a pickle says."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {PAYLOAD}",)


class EvalPayload:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({PAYLOAD!r}, 'w')",)


def _torch(content: Any, **options: Any) -> Callable[[State, Path], None]:
    def write(state: State, path: Path) -> None:
        torch.save(content(dict(state)) if callable(content) else content, path, **options)

    return write


def _edit(change: Callable[[State, str], Any]) -> Callable[[State, Path], None]:
    """Save a state dict of which one weight was changed."""

    def write(state: State, path: Path) -> None:
        edited = dict(state)
        change(edited, next(key for key in edited if key.endswith("weight")))
        torch.save(edited, path)

    return write


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[State, Path], None]:
    def write(state: State, path: Path) -> None:
        save = save_file if path.suffix == ".safetensors" else torch.save
        save(state, path)
        path.write_bytes(change(path.read_bytes()))

    return write


def _header(change: Callable[[dict[str, Any]], object]) -> Callable[[State, Path], None]:
    """Save safetensors whose JSON header was changed."""

    def edit(content: bytes) -> bytes:
        size = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + size])
        header.pop("__metadata__", None)
        change(header)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + size :]

    return _bytes(edit)


def _set(state: State, key: str, value: Any) -> None:
    state[key] = value


def _first(header: dict[str, Any]) -> dict[str, Any]:
    return next(iter(header.values()))


def _compressed(state: State, path: Path) -> None:
    """Save a torch file whose one tensor unpacks to a thousand times its size."""
    torch.save({"w": torch.zeros(10_000_000)}, path)
    with zipfile.ZipFile(path) as source:
        entries = [(e.filename, source.read(e)) for e in source.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in entries:
            target.writestr(name, content)


def _scripted(state: State, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own retirement of TorchScript
        traced = torch.jit.trace(torch.nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 4, 4))
        traced.save(str(path))


def _raw_pickle(state: State, path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload()))


def _wide(value: float, dtype: torch.dtype) -> Callable[[State, str], None]:
    return lambda s, k: _set(s, k, torch.full(s[k].shape, value, dtype=dtype))


BAD_CHECKPOINTS: dict[str, Callable[[State, Path], None]] = {
    "empty.pth": _bytes(lambda _: b""),
    "text.pth": _bytes(lambda _: b"the parameters are in the other file\n"),
    **{f"cut-{s}.pth": _bytes(lambda c, s=s: cut(c, s)) for s in (0.01, 0.5, 0.999)},
    **{f"flipped-{s}.pth": _bytes(lambda c, s=s: flip(c, s)) for s in (0.3, 0.5, 0.9)},
    "html.pth": _bytes(lambda _: b"<!DOCTYPE html><title>Too many downloads</title>"),
    "other-variant.pth": _edit(lambda s, _: [s.pop(k) for k in list(s) if "layer3" in k]),
    "missing-key.pth": _edit(lambda s, k: s.pop(k)),
    "extra-key.pth": _edit(lambda s, k: _set(s, "decoder.extra", s[k])),
    "wrong-shape.pth": _edit(lambda s, k: _set(s, k, s[k][:1])),
    "stretched.pth": _edit(lambda s, k: _set(s, k, torch.zeros(1).expand(10**12))),
    "nan.pth": _edit(lambda s, k: _set(s, k, torch.full_like(s[k], torch.nan))),
    "infinite.pth": _edit(lambda s, k: _set(s, k, torch.full_like(s[k], torch.inf))),
    "beyond-float32.pth": _edit(_wide(1e300, torch.float64)),
    "integers.pth": _edit(_wide(1, torch.int8)),
    "booleans.pth": _edit(_wide(1, torch.bool)),
    "complex.pth": _edit(_wide(1, torch.complex64)),
    "sparse.pth": _edit(lambda s, k: _set(s, k, s[k].to_sparse())),
    "list.pth": _torch(lambda s: list(s.values())),
    "number.pth": _torch(7),
    "nothing.pth": _torch({}),
    "no-tensors.pth": _torch({"state_dict": {"conv1.weight": [1.0, 2.0]}}),
    "prefix-twice.pth": _torch(lambda s: s | {f"module.{k}": v for k, v in s.items()}),
    "payload.pth": _torch({"state_dict": Payload()}),
    "payload-eval.pth": _torch({"state_dict": EvalPayload()}),
    "payload-legacy.pth": _torch({"w": Payload()}, _use_new_zipfile_serialization=False),
    "payload-pickle.pkl": _raw_pickle,
    "payload-named.safetensors": _raw_pickle,
    "whole-module.pth": _torch(lambda _: torch.nn.Conv2d(3, 4, 1)),
    "scripted.pt": _scripted,
    "compressed.pth": _compressed,
    "empty.safetensors": _bytes(lambda _: b""),
    "text.safetensors": _bytes(lambda _: b"no tensors in here, safe or not\n"),
    **{f"cut-{s}.safetensors": _bytes(lambda c, s=s: cut(c, s)) for s in (0.001, 0.5, 0.999)},
    "long-header.safetensors": _bytes(lambda c: struct.pack("<Q", 2**62) + c[8:]),
    "header-past-end.safetensors": _bytes(lambda c: struct.pack("<Q", len(c)) + c[8:]),
    "header-no-json.safetensors": _bytes(lambda c: c[:8] + b"[" + c[9:]),
    "overlap.safetensors": _header(
        lambda h: [v.update(data_offsets=_first(h)["data_offsets"]) for v in h.values()]
    ),
    "offsets-past-end.safetensors": _header(
        lambda h: _first(h).update(data_offsets=[0, 10**12], shape=[25 * 10**10])
    ),
    "huge-shape.safetensors": _header(lambda h: _first(h).update(shape=[2**62, 2**62])),
    "negative-shape.safetensors": _header(lambda h: _first(h).update(shape=[-1])),
    "unknown-type.safetensors": _header(lambda h: _first(h).update(dtype="F7")),
}
