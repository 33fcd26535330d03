"""Arrays out of other people's pickles: every form is read, and nothing in them is run."""

import base64
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest

from abaw_jax.data import pickles
from abaw_jax.data.pickles import load_array
from abaw_jax.errors import InputError

# torch.arange(12.0).reshape(3, 4)[1:, ::2] / 4 as torch 2.13 writes it, zlib, base 85:
# pickle.dumps(protocol 2), torch.save, and torch.save(_use_new_zipfile_serialization=False).
TORCH = {
    "dump": (
        "c-n1H%T59@6zx0!twP-DiY0CcB0gBj!mye6!c8}(89Ehe#woY$kYGZ>MxuU$AE2LL;%fLY+rZK;?&&=}Ik)F7d}g"
        "F#<0j3GNHwO44|9<w)bLD8MW<~HsIk##3-O3!n#wq#k4iq%;mmN2!DE!kgfoqK<}Mg~a^N9UEd1gFr>o!Mv%mVOK"
        "NVlM`%Oz;t-b??b8Ala5JD3rjbt*VQ?9g-8F)@Ys`e=r#-yC`ED>=Ae(^@IWzB5DsTMC>LokQ1K}wd?W2p?3BA*1"
        "d6PbZ>6q3-H$ZQ0aD9m#=wm~XRy^aHD9S`?yEOWof2p*|fO}BG=-a2iaoVB{`&N-}&*(8S`3a<@>ch2qs(0^htZo"
        "1LyQ!FkJTDgLH2-SNKkh1$%Y(#bh;Sx#%D8E8w09z4?{K#Lzwgqnq_?_9sq?{SM7maUJ!WB<01v40S4hOJnpgMqB"
        "^AAa>h-C"
    ),
    "save": (
        "c-o~@O>5Lp6un7iGGm14)J?HqQ9&3%=PUE6=#(JY1avxL8HEzk%ySH;lfLB5h=NcM3;qQc>c4R7&ZX$uh2TmzZpD"
        "@FO>COH+LY>ra7l8{x#zx|o4z4s0P=Y_5JflzmTy0BW~ef<h*jQx=;~Sl?j>SJw24Qn%I1_fZlIVx+MGJ>$RubIc"
        ")mHSD;P?pVU98ew9*<QEQAn6cRh>T4j(F59166iilw1Mv%NjV86!h*cFh1oG{jvj(<JQT+zZ?GTo>8I@g{+C%O4>"
        "hjczzLQE>j^0G}XO8Q_!UzLCpcxO@KQOUlNs{-KjD!MSMC@_o<WvWPiDen9zk?F=_C7d6)A?T^pTn0O(z%`&w2+x"
        "$5T({i2hWD8A*uBqvr{vNFc6VQ8vzlpSkm?~fqdXa$5#{_xo=ydJszx3S;*CE73OvCeQUr)=li=3*V0M`?)s#JCD"
        "%6|v|*y#bhqZh0KoLyx~$eWF)#kqsilq`T6DT%&z<+xH*g?0S+YJBJD^Iw7bz5(XL2grA*1D;sS%ce8Zwem3q)SB"
        "&jr`GK@Yqd_Z(Q2sGdaK${+YPnZ?$Xp!yVZ85(_|`Num8%HsE*QHrNG2SI^&yCJfNKa5Af*t0xTtv-(zTQw|J7ci"
        "I)>3YXYQf4$l)e;$nj5Q;a8C03IH9Pay$c7lHFGkB$3aA%Xo8!yYn!{PV0Nzyk@6Fizi)<x6`ulP*Wd9G5=`Vg4z"
        "Fnd0WJ-e<%6@DG-iLriX7AJ+Z`u5VSE"
    ),
    "save_bfloat16": (
        "c-o~@zi-n(6h7OD6I?0%v9!$)7=r|9oWyoYMN?VGiwDvms))t7_7N=HxMyF2fPqSgO8gP<Z?Li<CIk~mY)lM@m65"
        "xcx@T8$MR}6-Wcz*Z``-C`?wdjZfN~j}i6yWC?9h4WP2q-XW4m$q$T#!~xR;6}-oXK>YFHEO`H^IWaDU?Yu7%+^3"
        "PNkzk`SoZhb7W6B9-<CA})qVy5R>lmeo7)a|!W7j+8Z#Fce634kxH!7BDLAn!w~u{uqfQamT3i%5ehUhYt3FaU|U"
        "iT^K_5mgiszm9GxaC5)s2T4?mmQu*@s*XOTEH+uEw4!a6!$*_$FL3m(eYYM}N^f&ZsW@a{I%JKHsw-;17m&;KF+9"
        "}81v#@O68;uX(7#n&!hh}c59V(#r82#W01)nQm8T1kX`%f?o=(!pC)<t+v!uK%tA=U8m=J$1xu!y-DDquV1s*R?h"
        "-}ny!N4<AFuybXHDp=q1K2XYXu7X9dl_*F)v35}jZHY2}dNaCv{`uEH>(l_V;UgG&!~sujYGliE4ZZP?LS#j2b>+"
        "=XMV7ltNA0wmEw!mAirUpwO;eh(s%o+(x2ei!3v2i5L`Qw5lA~f1o$Q({ol&0s4`k8o0<5NxKN)mpv9e8A6IWABb"
        "~%u<IoUp}5tmbaJ~Mri1<1l#7gbX5JsxDdo5iv|SWIERFxWZsv!ADy0uKamj&b^?C|*0UnQ%QpmNNMx7w6wXoC$9"
        "B>U}Z3kN;prF~*c;^>OVVSo~J?"
    ),
    "save_before_1_6": (
        "c-n1G%Sr<=6wPF&jz$!>?z*g-Qfk$9Wf#&-@Krb2NEkDrjf6>Wk|`(@x+>~7_yK-~zvCweF1)o{FXTc_PR?UV-<b"
        "V*AAL6;KW+}&OM3a0;$8r0i338&%)986vvRI|Fs_0G31SaltclTTsjJcy70?&K5R6YVErWU10n!CzEzv+QOr4L=;"
        "8dh|GgX8wo{4O&;i?JbJgaN;RMB}gZOb|u8<_O^p*FUZQCGovIqx#e)Drnx5Shh9L$dk8M%ESaZUZu)Vjnq!-f_Q"
        "k+BrGv47$BOq<`LORzt?KD@=3C38$Q{Fbn0$3i4NlHLX?=TLyOROYL=eVN_(WeKdxh2y6_ynDZXUe-25}URT=8@|"
        "=)QJY+~nbNCCCmSYJ"
    ),
}
TENSOR = np.array([[1, 1.5], [2, 2.5]], np.float32)


def torch_file(name):
    return zlib.decompress(base64.b85decode(TORCH[name]))


def read(tmp_path, data):
    path = tmp_path / "00001.pkl"
    path.write_bytes(data)
    return load_array(path)


def refused(tmp_path, data, *words):
    with pytest.raises(InputError) as caught:
        read(tmp_path, data)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(tmp_path / "00001.pkl"))
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", "i8", "u1", "?"])
def test_arrays_of_numpy(tmp_path, dtype, protocol):
    whole = (np.arange(24).reshape(4, 6) - 3).astype(dtype)
    for array in (whole, np.asfortranarray(whole), whole[1:, ::2], whole[:0], whole[2, 3]):
        found = read(tmp_path, pickle.dumps(array, protocol))
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype and found.shape == array.shape


def test_arrays_of_older_numpy(tmp_path):
    data = pickle.dumps(TENSOR, 4)
    older = data.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
    assert older != data
    frame = struct.pack("<Q", struct.unpack_from("<Q", data, 3)[0] - 1)
    np.testing.assert_array_equal(read(tmp_path, older[:3] + frame + older[11:]), TENSOR)


@pytest.mark.parametrize("name", TORCH)
def test_tensors_of_torch(tmp_path, name):
    found = read(tmp_path, torch_file(name))
    np.testing.assert_array_equal(found, TENSOR)
    assert found.dtype == np.float32


def test_torch_is_not_needed():
    code = "import sys, abaw_jax.data.pickles; print({'torch', 'jax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def hostile(marker):
    """Name -> an object whose unpickling would make the file `marker`."""
    shell, code = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    system, evaluate = Call(os.system, shell), Call(eval, code)
    state = (1, (1,), Call(np.dtype, "f4"), False, system)
    return {
        "system": system,
        "eval": evaluate,
        "exec": Call(exec, code),
        "in a list": [TENSOR, evaluate],
        "as an argument": Call(pickle.loads, Call(eval, code)),
        "of a dtype": Call(np.dtype, system),
        "of objects": np.array([system, evaluate], dtype=object),
        "nested": Call(pickle.loads, pickle.dumps(system)),
        "partial": Call(np.apply_along_axis, os.system, 0, np.array([shell])),
        "state": (state,),
    }


@pytest.fixture
def marker(tmp_path):
    path = tmp_path / "ran"
    yield path
    assert not path.exists(), "something in the pickle was run"


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", hostile("x"))
def test_nothing_is_run(tmp_path, marker, name, protocol):
    data = pickle.dumps(hostile(marker)[name], protocol)
    fault = "elements of type 'O8'" if name == "of objects" else "of which no array is made"
    refused(tmp_path, data, fault, "not read")


def test_what_is_refused_would_have_run(tmp_path):
    for name in ("system", "eval", "exec", "in a list", "of objects", "nested"):
        path = tmp_path / name.replace(" ", "_")
        pickle.loads(pickle.dumps(hostile(path)[name]))
        assert path.exists()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),  # INST
        (b"(cos\nsystem\nS'true'\no.", "os.system"),  # OBJ
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "numpy.ndarray.tofile"),
        (b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.", "builtins.getattr"),
        (b"c__main__\n__builtins__\n.", "__main__.__builtins__"),
        (b"cabaw_jax.data.pickles\nload_array\n.", "abaw_jax.data.pickles.load_array"),
        (b"\x80\x04\x8c\x02a\n\x8c\x02\x1b[\x93.", "a\\n.\\x1b["),
    ],
)
def test_names_are_refused_in_every_opcode(tmp_path, data, named):
    refused(tmp_path, data, f"names {named}, of which no array is made")


def test_inside_of_torch_files_nothing_is_run(tmp_path, marker):
    bad = pickle.dumps(hostile(marker)["system"], 2)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x/data.pkl", bad)
    refused(tmp_path, archive.getvalue(), "names posix.system")
    nested = b"\x80\x02ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(bad))
    refused(tmp_path, nested + bad + b"\x85R.", "names posix.system")
    magic = torch_file("save_before_1_6")[:15]
    refused(tmp_path, magic + bad, "names posix.system")
    identity = b"\x80\x02" + bad[2:-1] + b"Q."  # as a persistent id
    refused(tmp_path, identity, "names posix.system")


def test_stand_ins_cannot_be_changed(tmp_path):
    """BUILD with a second state sets attributes of whatever was pushed before."""
    name = b"c_codecs\nencode\n"
    attack = b"\x80\x02" + name + b"N}X\x05\x00\x00\x00_callK\x01s\x86b."
    refused(tmp_path, attack, "sets _call of a function")
    refused(tmp_path, b"\x80\x02" + name + b"}X\x01\x00\x00\x00xK\x01sb.", "is no pickle")
    np.testing.assert_array_equal(read(tmp_path, pickle.dumps(TENSOR, 2)), TENSOR)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"features": TENSOR}, "holds a dict"),
        ([1.0, 2.0], "holds a list"),
        (None, "holds a nonetype"),
        (np.array(["a"]), "elements of type 'U1'"),
        (np.zeros(2, "f4,i4"), "elements of type 'V8'"),
        (np.array(["2020-01-01"], "M8[D]"), "elements of type 'M8'"),
    ],
)
def test_other_contents_are_refused(tmp_path, value, words):
    refused(tmp_path, pickle.dumps(value, 2), words)


def reconstructed(shape, dtype, data):
    """A pickled array with this state, true or not."""
    elements = Call(np.dtype, dtype)

    class State:
        def __reduce__(self):
            start = (np.ndarray, (0,), b"b")
            function = np.empty(0).__reduce__()[0]
            return function, start, (1, shape, elements, False, data)

    return pickle.dumps(State(), 4)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((10**12, 10**6), "holds 4 numbers"), ((-1, 4), "the shape"), ((5,), "holds 4"), (4, "shape")],
)
def test_shapes_that_lie_are_refused(tmp_path, shape, words):
    refused(tmp_path, reconstructed(shape, "f4", bytes(16)), words)
    assert read(tmp_path, reconstructed((2, 2), "f4", bytes(16))).shape == (2, 2)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (3, 4), (4, 2)),
        (11, (2,), (1,)),
        (0, (10**9,), (0,)),
        (-1, (2,), (1,)),
        (0, (2,), (1, 1)),
    ],
)
def test_tensors_that_reach_beyond_their_storage_are_refused(offset, size, stride):
    storage = pickles._Storage("FloatStorage", 12, bytes(48))
    with pytest.raises((pickles._Fault, ValueError)):
        pickles._Tensor(storage, offset, size, stride).array()


@pytest.mark.parametrize("name", TORCH)
def test_cut_files_are_one_line(tmp_path, name):
    data = torch_file(name)
    for length in (0, 1, 20, len(data) // 2, len(data) - 3):
        refused(tmp_path, data[:length], "00001.pkl")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none.pkl: cannot be read \(No such file"):
        load_array(tmp_path / "none.pkl")
