/* SPDX-License-Identifier: MIT
 *
 * The globals that pickles of state dicts name (torch/_weights_only_unpickler.py, _utils.py,
 * storage.py; distributed/checkpoint/metadata.py), each with what may be done with it. */
#include "formats/torch/pickle_values.h"

#include <string.h>

#define CALL PICKLE_REDUCE
#define STORAGE(name, type)                                             \
    {                                                                   \
        "torch", name, PICKLE_ROLE_STORAGE, PICKLE_MENTION, false, type \
    }
#define OTHER_STORAGE(name)                                                \
    {                                                                      \
        "torch", name, PICKLE_ROLE_OTHER_STORAGE, PICKLE_MENTION, false, 0 \
    }
#define DTYPE(name, type)                                             \
    {                                                                 \
        "torch", name, PICKLE_ROLE_DTYPE, PICKLE_MENTION, false, type \
    }
#define OTHER_DTYPE(name)                                                \
    {                                                                    \
        "torch", name, PICKLE_ROLE_OTHER_DTYPE, PICKLE_MENTION, false, 0 \
    }
#define REBUILD(name, role)                        \
    {                                              \
        "torch._utils", name, role, CALL, false, 0 \
    }
#define OTHER_TENSOR(name) REBUILD(name, PICKLE_ROLE_OTHER_TENSOR)
#define PLAIN(module, name)                             \
    {                                                   \
        module, name, PICKLE_ROLE_PLAIN, CALL, false, 0 \
    }
#define DCP(name, role)                                                             \
    {                                                                               \
        "torch.distributed.checkpoint.metadata", name, role, PICKLE_NEWOBJ, true, 0 \
    }

static const struct pickle_global globals[] = {
    {"collections", "OrderedDict", PICKLE_ROLE_ORDERED_DICT, CALL, false, 0},
    REBUILD("_rebuild_tensor", PICKLE_ROLE_REBUILD_TENSOR),
    REBUILD("_rebuild_tensor_v2", PICKLE_ROLE_REBUILD_TENSOR_V2),
    REBUILD("_rebuild_tensor_v3", PICKLE_ROLE_REBUILD_TENSOR_V3),
    REBUILD("_rebuild_parameter", PICKLE_ROLE_REBUILD_PARAMETER),
    REBUILD("_rebuild_parameter_with_state", PICKLE_ROLE_REBUILD_PARAMETER),
    {"torch._tensor", "_rebuild_from_type_v2", PICKLE_ROLE_REBUILD_FROM_TYPE, CALL, false, 0},
    {"torch", "Tensor", PICKLE_ROLE_TENSOR_TYPE, PICKLE_MENTION, false, 0},
    {"torch.nn.parameter", "Parameter", PICKLE_ROLE_TENSOR_TYPE, PICKLE_MENTION, false, 0},
    OTHER_TENSOR("_rebuild_meta_tensor_no_storage"),
    OTHER_TENSOR("_rebuild_sparse_tensor"),
    OTHER_TENSOR("_rebuild_sparse_csr_tensor"),
    OTHER_TENSOR("_rebuild_qtensor"),
    OTHER_TENSOR("_rebuild_wrapper_subclass"),
    OTHER_TENSOR("_rebuild_nested_tensor"),
    OTHER_TENSOR("_rebuild_device_tensor_from_numpy"),
    OTHER_TENSOR("_rebuild_device_tensor_from_cpu_tensor"),

    STORAGE("DoubleStorage", DTYPE_F64),
    STORAGE("FloatStorage", DTYPE_F32),
    STORAGE("HalfStorage", DTYPE_F16),
    STORAGE("BFloat16Storage", DTYPE_BF16),
    STORAGE("LongStorage", DTYPE_I64),
    STORAGE("IntStorage", DTYPE_I32),
    STORAGE("ShortStorage", DTYPE_I16),
    STORAGE("CharStorage", DTYPE_I8),
    STORAGE("ByteStorage", DTYPE_U8),
    STORAGE("BoolStorage", DTYPE_BOOL),
    STORAGE("ComplexFloatStorage", DTYPE_C64),
    OTHER_STORAGE("ComplexDoubleStorage"),
    OTHER_STORAGE("QInt8Storage"),
    OTHER_STORAGE("QUInt8Storage"),
    OTHER_STORAGE("QInt32Storage"),
    OTHER_STORAGE("QUInt4x2Storage"),
    OTHER_STORAGE("QUInt2x4Storage"),
    {"torch.storage", "UntypedStorage", PICKLE_ROLE_UNTYPED_STORAGE, PICKLE_MENTION, false, 0},
    {"torch.storage", "TypedStorage", PICKLE_ROLE_OTHER_STORAGE, PICKLE_MENTION, false, 0},

    DTYPE("float64", DTYPE_F64),
    DTYPE("float32", DTYPE_F32),
    DTYPE("float16", DTYPE_F16),
    DTYPE("bfloat16", DTYPE_BF16),
    DTYPE("int64", DTYPE_I64),
    DTYPE("int32", DTYPE_I32),
    DTYPE("int16", DTYPE_I16),
    DTYPE("int8", DTYPE_I8),
    DTYPE("uint8", DTYPE_U8),
    DTYPE("uint16", DTYPE_U16),
    DTYPE("uint32", DTYPE_U32),
    DTYPE("uint64", DTYPE_U64),
    DTYPE("bool", DTYPE_BOOL),
    DTYPE("complex64", DTYPE_C64),
    DTYPE("float8_e4m3fn", DTYPE_F8_E4M3),
    DTYPE("float8_e5m2", DTYPE_F8_E5M2),
    DTYPE("float8_e4m3fnuz", DTYPE_F8_E4M3FNUZ),
    DTYPE("float8_e5m2fnuz", DTYPE_F8_E5M2FNUZ),
    DTYPE("float8_e8m0fnu", DTYPE_F8_E8M0),
    DTYPE("float4_e2m1fn_x2", DTYPE_F4),
    OTHER_DTYPE("complex32"),
    OTHER_DTYPE("complex128"),
    OTHER_DTYPE("qint8"),
    OTHER_DTYPE("quint8"),
    OTHER_DTYPE("qint32"),
    OTHER_DTYPE("quint4x2"),
    OTHER_DTYPE("quint2x4"),
    OTHER_DTYPE("bits1x8"),
    OTHER_DTYPE("bits2x4"),
    OTHER_DTYPE("bits4x2"),
    OTHER_DTYPE("bits8"),
    OTHER_DTYPE("bits16"),

    {"torch", "Size", PICKLE_ROLE_SIZE, CALL, false, 0},
    PLAIN("torch", "device"),
    PLAIN("torch.serialization", "_get_layout"),
    PLAIN("_codecs", "encode"),
    PLAIN("__builtin__", "set"),
    PLAIN("builtins", "set"),
    PLAIN("__builtin__", "bytearray"),
    PLAIN("builtins", "bytearray"),
    PLAIN("__builtin__", "complex"),
    PLAIN("builtins", "complex"),
    PLAIN("collections", "Counter"),

    DCP("Metadata", PICKLE_ROLE_METADATA),
    DCP("TensorStorageMetadata", PICKLE_ROLE_TENSOR_METADATA),
    DCP("BytesStorageMetadata", PICKLE_ROLE_BYTES_METADATA),
    DCP("TensorProperties", PICKLE_ROLE_PROPERTIES),
    DCP("ChunkStorageMetadata", PICKLE_ROLE_CHUNK),
    DCP("MetadataIndex", PICKLE_ROLE_METADATA_INDEX),
    DCP("StorageMeta", PICKLE_ROLE_STORAGE_META),
    {"torch.distributed.checkpoint.filesystem", "_StorageInfo", PICKLE_ROLE_STORAGE_INFO,
     PICKLE_NEWOBJ, true, 0},
    {"torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING", PICKLE_ROLE_MEMORY_FORMAT,
     CALL, true, 0},
    {"builtins", "getattr", PICKLE_ROLE_GETATTR, CALL, true, 0},
    {"pathlib", "PosixPath", PICKLE_ROLE_PLAIN, CALL, true, 0},
    {"pathlib", "WindowsPath", PICKLE_ROLE_PLAIN, CALL, true, 0},
    {"pathlib._local", "PosixPath", PICKLE_ROLE_PLAIN, CALL, true, 0},
    {"pathlib._local", "WindowsPath", PICKLE_ROLE_PLAIN, CALL, true, 0},
};

/* Modules of which nothing belongs into data. A module stands for its submodules, too. What is not
 * here and has no row above is refused as well, but nobody is accused by it: training scripts put
 * paths, enums and classes of their own beside the weights. */
static const char *const hostile_modules[] = {
    "os",         "posix",
    "nt",         "sys",
    "subprocess", "commands",
    "popen2",     "pty",
    "shutil",     "socket",
    "builtins",   "__builtin__",
    "importlib",  "imp",
    "runpy",      "code",
    "codeop",     "ctypes",
    "pickle",     "cPickle",
    "_pickle",    "marshal",
    "shelve",     "dill",
    "joblib",     "cloudpickle",
    "functools",  "operator",
    "_operator",  "inspect",
    "gc",         "threading",
    "_thread",    "asyncio",
    "concurrent", "signal",
    "atexit",     "multiprocessing",
    "pdb",        "bdb",
    "timeit",     "trace",
    "profile",    "cProfile",
    "doctest",    "distutils",
    "setuptools", "pip",
    "ensurepip",  "venv",
    "webbrowser", "http",
    "urllib",     "urllib2",
    "requests",   "httplib",
    "aiohttp",    "ftplib",
    "smtplib",    "telnetlib",
    "xmlrpc",     "tempfile",
    "fileinput",  "linecache",
    "zipimport",  "pkgutil",
    "site",       "ast",
    "_ast",       "torch.hub",
    "torch.jit",  "torch.package",
};
static const struct {
    const char *module, *name;
} hostile_names[] = {
    {"torch", "load"},
    {"torch", "compile"},
    {"torch.serialization", "load"},
    {"torch.storage", "_load_from_bytes"},
    {"torch.utils.cpp_extension", "load"},
    {"torch.utils.cpp_extension", "load_inline"},
    {"numpy", "load"},
    {"numpy.testing._private.utils", "runstring"},
    {"_codecs", "decode"},
    {"io", "open"},
    {"io", "FileIO"},
    {"_io", "open"},
    {"_io", "FileIO"},
    {"types", "FunctionType"},
    {"types", "CodeType"},
};
/* What is harmless of the modules above. */
static const char *const plain_builtins[] = {
    "slice", "range",   "xrange", "frozenset", "object", "int",  "long",  "float",
    "str",   "unicode", "bytes",  "bool",      "list",   "dict", "tuple", "Ellipsis",
};

static bool equals(const char *text, const char *bytes, size_t length)
{
    return strlen(text) == length && memcmp(text, bytes, length) == 0;
}

const struct pickle_global *pickle_global_find(const char *module, size_t module_length,
                                               const char *name, size_t name_length,
                                               bool distributed)
{
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if ((distributed || !globals[i].distributed) &&
            equals(globals[i].name, name, name_length) &&
            equals(globals[i].module, module, module_length))
            return &globals[i];
    return NULL;
}

static bool is_plain_builtin(const char *module, size_t module_length, const char *name,
                             size_t name_length)
{
    if (!equals("builtins", module, module_length) && !equals("__builtin__", module, module_length))
        return false;
    for (size_t i = 0; i < sizeof plain_builtins / sizeof *plain_builtins; i++)
        if (equals(plain_builtins[i], name, name_length))
            return true;
    return false;
}

bool pickle_global_is_hostile(const char *module, size_t module_length, const char *name,
                              size_t name_length)
{
    if (is_plain_builtin(module, module_length, name, name_length))
        return false;
    for (size_t i = 0; i < sizeof hostile_modules / sizeof *hostile_modules; i++) {
        size_t length = strlen(hostile_modules[i]);
        if (module_length >= length && memcmp(module, hostile_modules[i], length) == 0 &&
            (module_length == length || module[length] == '.'))
            return true;
    }
    for (size_t i = 0; i < sizeof hostile_names / sizeof *hostile_names; i++)
        if (equals(hostile_names[i].module, module, module_length) &&
            equals(hostile_names[i].name, name, name_length))
            return true;
    return false;
}
