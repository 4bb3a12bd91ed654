#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Container images for tests, written as OCI layouts.

  ociimage.py kernel DIR           a kernel and modules that the import accepts
  ociimage.py image DIR COMP...    an image of three layers with all that is
                                   special in layers; COMP (gzip, zstd, plain)
                                   says how each is packed
  ociimage.py evil DIR KIND        an image that must be refused
  ociimage.py busybox DIR          a small system of two layers, without kernel
  ociimage.py big DIR MIB LAYERS   an image of MIB of text and binaries
  ociimage.py docker DIR FILE      the image of layout DIR as of docker save
"""
import gzip
import hashlib
import io
import json
import os
import random
import struct
import subprocess
import sys
import tarfile

MTIME = 1700000000
RELEASE = "6.1.0-test"


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def pack(data, how):
    if how == "gzip":
        return gzip.compress(data, 6, mtime=0)
    if how == "two-gzip":  # two members, as pigz or stargz make them
        return gzip.compress(data[:1000], mtime=0) + gzip.compress(data[1000:], mtime=0)
    if how == "zstd":
        return subprocess.run(["zstd", "-q", "-c", "-3"], input=data, check=True,
                              stdout=subprocess.PIPE).stdout
    return data


class Layer:
    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name, data=None, kind=None, link="", mode=0o644, uid=0, gid=0,
            xattrs=None, device=(0, 0), mtime=MTIME):
        info = tarfile.TarInfo(name)
        info.type = kind or (tarfile.DIRTYPE if data is None else tarfile.REGTYPE)
        info.mode = 0o755 if info.type == tarfile.DIRTYPE and mode == 0o644 else mode
        info.uid, info.gid, info.mtime, info.linkname = uid, gid, mtime, link
        info.devmajor, info.devminor = device
        for key, value in (xattrs or {}).items():
            info.pax_headers["SCHILY.xattr." + key] = value
        data = data.encode() if isinstance(data, str) else data
        info.size = len(data) if data is not None and info.type == tarfile.REGTYPE else 0
        self.tar.addfile(info, io.BytesIO(data or b""))

    def symlink(self, name, target):
        self.add(name, kind=tarfile.SYMTYPE, link=target, mode=0o777)

    def hardlink(self, name, target):
        self.add(name, kind=tarfile.LNKTYPE, link=target)

    def bytes(self):
        self.tar.close()
        return self.buffer.getvalue()


class Layout:
    def __init__(self, path):
        self.path = path
        os.makedirs(path + "/blobs/sha256", exist_ok=True)

    def blob(self, data, kind, **more):
        digest = sha(data)
        with open(f"{self.path}/blobs/sha256/{digest[7:]}", "wb") as f:
            f.write(data)
        return {"mediaType": kind, "digest": digest, "size": len(data), **more}

    def image(self, layers, tag="latest", config=None, diff_ids=None):
        """layers: (plain tar, how it is packed)."""
        kinds = {"plain": "", "zstd": "+zstd"}
        descriptors = [self.blob(pack(tar, how), "application/vnd.oci.image.layer.v1.tar" +
                                 kinds.get(how, "+gzip")) for tar, how in layers]
        conf = {"architecture": "amd64", "os": "linux", "config": config or {},
                "rootfs": {"type": "layers",
                           "diff_ids": diff_ids or [sha(tar) for tar, _ in layers]}}
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": self.blob(json.dumps(conf).encode(),
                                        "application/vnd.oci.image.config.v1+json"),
                    "layers": descriptors}
        kind = manifest["mediaType"]
        good = self.blob(json.dumps(manifest).encode(), kind,
                         platform={"os": "linux", "architecture": "amd64"})
        other = self.blob(json.dumps({"schemaVersion": 2, "layers": []}).encode(), kind,
                          platform={"os": "linux", "architecture": "arm64"})
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                 "manifests": [other, good]}
        self.multi = self.blob(json.dumps(index).encode(), index["mediaType"])
        del good["platform"]
        good["annotations"] = {"org.opencontainers.image.ref.name": tag}
        self.write([good])

    def write(self, manifests):
        with open(self.path + "/oci-layout", "w") as f:
            f.write('{"imageLayoutVersion": "1.0.0"}')
        with open(self.path + "/index.json", "w") as f:
            json.dump({"schemaVersion": 2, "manifests": manifests}, f)


CONFIG = {"Env": ["PATH=/usr/bin", "LANG=C"], "Entrypoint": ["/usr/bin/a"],
          "Cmd": ["--serve"], "WorkingDir": "/srv"}


def sparse_tar(workdir):
    """A sparse file as GNU tar writes it: 5 MiB with two data pages."""
    os.makedirs(workdir, exist_ok=True)
    with open(workdir + "/sparse", "wb") as f:
        f.write(b"begin")
        f.seek(5 * 1024 * 1024 - 3)
        f.write(b"end")
    os.utime(workdir + "/sparse", (MTIME, MTIME))
    tar = subprocess.run(["tar", "-C", workdir, "--format=posix", "--sparse", "--owner=0",
                          "--group=0", "--pax-option=delete=atime,delete=ctime",
                          "--sort=name", "-cf", "-", "sparse"],
                         check=True, stdout=subprocess.PIPE).stdout
    os.unlink(workdir + "/sparse")
    os.rmdir(workdir)
    return tar


def image(path, packing):
    base, middle, top = Layer(), Layer(), Layer()
    for name in ("", "etc/", "usr/", "usr/bin/", "usr/lib/", "srv/"):
        base.add("./" + name)
    base.add("etc/os-release", 'PRETTY_NAME="Test image"\nID=test\n')
    base.add("usr/bin/a", "#!first\n", mode=0o755)
    base.add("usr/bin/setuid", "x", mode=0o4755, uid=5, gid=6)
    base.symlink("lib", "usr/lib")
    base.symlink("usr/bin/sh", "/usr/bin/a")
    base.add("usr/lib/capable", "x", xattrs={
        "user.color": "blue", "user.other": "1"})
    base.add("srv/gone/")
    base.add("srv/gone/1", "one")
    base.add("srv/gone/deep/")
    base.add("srv/gone/deep/2", "two")
    base.add("srv/opaque/", mode=0o700)
    base.add("srv/opaque/old", "old")
    base.add("srv/opaque/olddir/")
    base.add("srv/opaque/olddir/x", "x")
    base.add("srv/file-then-folder", "file")
    base.add("srv/folder-then-file/")
    base.add("srv/folder-then-file/x", "x")
    base.add("srv/kept", "kept")
    base.add("srv/hard1", "shared content")
    base.hardlink("srv/hard2", "srv/hard1")
    base.hardlink("srv/hard3", "srv/hard1")
    base.add("srv/fifo", kind=tarfile.FIFOTYPE)
    base.add("srv/console", kind=tarfile.CHRTYPE, device=(5, 1), mode=0o600)
    base.add("srv/" + "n" * 200, "a long name")
    base.add("srv/r\u00e9sum\u00e9", "not ASCII")
    base.add("srv/random", random.Random(1).randbytes(300000))
    # Hides gone/ of below, and keeps what this layer itself has in it.
    middle.add("srv/.wh.gone", "")
    middle.add("srv/gone/")
    middle.add("srv/gone/new", "new")
    # The mark may stand behind what it does not concern.
    middle.add("srv/opaque/", mode=0o750)
    middle.add("srv/opaque/fresh", "fresh")
    middle.add("srv/opaque/.wh..wh..opq", "")
    middle.add("srv/.wh.file-then-folder", "")
    middle.add("srv/file-then-folder/")
    middle.add("srv/file-then-folder/y", "y")
    middle.add("srv/folder-then-file", "now a file")
    middle.add("srv/hard1", "changed in one name only")
    middle.add("srv/later", "l")
    middle.hardlink("srv/later2", "srv/later")
    middle.add("./usr/lib/capable", "y", xattrs={"user.color": "red"})
    top.add("srv/.wh.later", "")
    top.add("srv/.wh.nothing-like-this", "")
    top.add("/srv/absolute", "stays inside")
    top.add("etc/os-release", 'PRETTY_NAME="Test image 2"\nID=test\n')
    tars = [base.bytes(), middle.bytes(), top.bytes(), sparse_tar(path + ".sparse")]
    Layout(path).image(list(zip(tars, list(packing) + ["gzip"] * 4)), config=CONFIG)


def busybox(path):
    base, top = Layer(), Layer()
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "run"):
        base.add(name + "/")
    with open("/bin/busybox", "rb") as f:
        base.add("bin/busybox", f.read(), mode=0o755)
    for name in ("sh", "cat", "ls", "uname"):
        base.symlink("bin/" + name, "busybox")
    base.add("etc/os-release", 'ID=small\nPRETTY_NAME="Small container"\n')
    base.add("etc/of-layer-1", "hidden later")
    top.add("etc/.wh.of-layer-1", "")
    top.add("etc/of-layer-2", "from the second layer\n")
    Layout(path).image([(base.bytes(), "gzip"), (top.bytes(), "zstd")], config=CONFIG)


def evil(path, kind):
    layer, layers, diff_ids = Layer(), [], None
    layer.add("etc/os-release", "ID=evil\n")
    if kind == "dotdot":
        layer.add("../../escape", "x")
    elif kind == "symlink":
        layer.symlink("out", "/tmp")
        layer.add("out/favo-evil", "x")
    elif kind == "lower-symlink":
        layer.symlink("out", "/tmp")
        layers.append((layer.bytes(), "gzip"))
        layer = Layer()
        layer.add("out/favo-evil", "x")
    elif kind == "hardlink":
        layer.hardlink("shadow", "../../../etc/shadow")
    elif kind == "nowhere":
        layer.hardlink("shadow", "/etc/shadow")
    elif kind == "diff-id":
        diff_ids = [sha(b"something else")]
    elif kind == "whiteout":
        layer.add("etc/.wh...", "")
    elif kind == "bomb":
        layers.append((b"\0" * (300 << 20), "zstd"))
    elif kind == "sparse-bomb":
        raw = tarfile.TarInfo("huge")
        raw.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                           "GNU.sparse.name": "huge",
                           "GNU.sparse.realsize": str(900 << 30)}
        body = b"0\n".ljust(512, b"\0")
        raw.size = len(body)
        layer.tar.addfile(raw, io.BytesIO(body))
    layers.append((layer.bytes(), "gzip"))
    layout = Layout(path)
    layout.image(layers, diff_ids=diff_ids)
    blobs = path + "/blobs/sha256/"
    if kind == "flipped":
        name = blobs + sha(pack(layers[0][0], "gzip"))[7:]
        data = bytearray(open(name, "rb").read())
        data[len(data) // 2] ^= 1
        open(name, "wb").write(data)
    elif kind == "longer":
        open(blobs + sha(pack(layers[0][0], "gzip"))[7:], "ab").write(b"more")
    elif kind == "platform":
        layout.write([dict(layout.multi, platform={"os": "linux", "architecture": "arm64"})])


def big(path, mib, count):
    rng = random.Random(7)
    words = [bytes(rng.choices(range(97, 123), k=rng.randint(2, 11))) for _ in range(4000)]
    layout, layers, total, number = Layout(path), [], mib << 20, 0
    for i in range(count):
        layer, left = Layer(), total * (count - i) * 2 // (count * (count + 1))
        layer.add("etc/os-release", 'PRETTY_NAME="Big"\nID=big\n')
        while left > 0:
            # Most files are small, most bytes are in large ones, as in real systems.
            size = min(left, int(2 ** rng.uniform(9, 23)))
            if number % 3 == 0:
                data = rng.randbytes(size)
            else:
                block = b" ".join(rng.choices(words, k=2000))
                data = b"".join(block[rng.randrange(2000):] + struct.pack("<I", n)
                                for n in range(size // len(block) + 2))[:size]
            layer.add(f"usr/share/data{i}/d{number % 97}/file{number}", data)
            left -= size
            number += 1
        layers.append((layer.bytes(), "gzip"))
    layout.image(layers)


def docker(path, out):
    def load(digest):
        return open(f"{path}/blobs/sha256/{digest[7:]}", "rb").read()
    index = json.load(open(path + "/index.json"))
    manifest = json.loads(load(index["manifests"][0]["digest"]))
    config = load(manifest["config"]["digest"])
    names = []
    archive = Layer()
    for i, layer in enumerate(manifest["layers"]):
        data = load(layer["digest"])
        how = layer["mediaType"].rpartition("+")[2]
        if how == "gzip":
            data = gzip.decompress(data)
        elif how == "zstd":
            data = subprocess.run(["zstd", "-q", "-d", "-c"], input=data, check=True,
                                  stdout=subprocess.PIPE).stdout
        # Old docker saves name a layer twice, once by a symlink.
        archive.add(f"real{i}/layer.tar", data)
        archive.symlink(f"layer{i}.tar", f"real{i}/layer.tar")
        names.append(f"layer{i}.tar")
    archive.add("config.json", config)
    archive.add("manifest.json", json.dumps(
        [{"Config": "config.json", "RepoTags": ["test/app:v1"], "Layers": names}]))
    with open(out, "wb") as f:
        f.write(archive.bytes())


def kernel(path):
    """An ELF file with one note, XEN_ELFNOTE_PHYS32_ENTRY, and no modules to load."""
    modules = f"{path}/modules/{RELEASE}"
    os.makedirs(modules + "/kernel")
    with open(modules + "/modules.builtin", "w") as f:
        for name in "virtio_pci virtio_blk erofs overlay vmw_vsock_virtio_transport".split():
            f.write(f"k/{name}.ko\n")
    open(modules + "/modules.dep", "w").close()
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\177ELF\2\1\1", 2, 62, 1, 1 << 20, 64, 0, 0,
                       64, 56, 1, 0, 0, 0)
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen", 1 << 20)
    segment = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(note), len(note), 4)
    with open(path + "/vmlinux", "wb") as f:
        f.write(head + segment + note)


COMMANDS = {"kernel": lambda a: kernel(a[0]), "image": lambda a: image(a[0], a[1:]),
            "busybox": lambda a: busybox(a[0]), "evil": lambda a: evil(a[0], a[1]), "docker": lambda a: docker(a[0], a[1]),
            "big": lambda a: big(a[0], int(a[1]), int(a[2]))}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](sys.argv[2:])
