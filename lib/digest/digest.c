/* SPDX-License-Identifier: MIT */
#include "digest/digest.h"

#include "digest/secret.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY /* states of known size: one allocation per hasher */
#include "base/xxh3.h"

static const struct properties {
    const char *name;
    const EVP_MD *(*crypto)(void); /* NULL: not of the crypto library */
    uint8_t size;
    bool cryptographic;
} properties[DIGEST_ALGORITHM_COUNT] = {
    [DIGEST_NONE] = {.name = "none"},
    [DIGEST_SHA256] = {.name = "sha256", .crypto = EVP_sha256, .size = 32, .cryptographic = true},
    [DIGEST_SHA512] = {.name = "sha512", .crypto = EVP_sha512, .size = 64, .cryptographic = true},
    [DIGEST_SHA1] = {.name = "sha1", .crypto = EVP_sha1, .size = 20},
    [DIGEST_GIT_SHA1] = {.name = "git-sha1", .crypto = EVP_sha1, .size = 20},
    [DIGEST_MD5] = {.name = "md5", .crypto = EVP_md5, .size = 16},
    [DIGEST_XXH32] = {.name = "xxh32", .size = 4},
    [DIGEST_XXH64] = {.name = "xxh64", .size = 8},
    [DIGEST_XXH3_64] = {.name = "xxh3-64", .size = 8},
    [DIGEST_XXH3_128] = {.name = "xxh3-128", .size = 16},
    [DIGEST_KEYED] = {.name = "keyed", .size = 16},
};

struct hasher {
    _Alignas(64) union {
        EVP_MD_CTX *crypto;
        EVP_MAC_CTX *keyed;
        XXH32_state_t xxh32;
        XXH64_state_t xxh64;
        XXH3_state_t xxh3;
    } state;
    enum digest_algorithm algorithm;
    bool failed; /* the crypto library refused a step */
};

static const struct properties *properties_of(enum digest_algorithm algorithm)
{
    unsigned number = (unsigned)algorithm;
    return &properties[number < DIGEST_ALGORITHM_COUNT ? number : DIGEST_NONE];
}

size_t digest_size(enum digest_algorithm algorithm)
{
    return properties_of(algorithm)->size;
}

const char *digest_algorithm_name(enum digest_algorithm algorithm)
{
    return properties_of(algorithm)->name;
}

bool digest_is_cryptographic(enum digest_algorithm algorithm)
{
    return properties_of(algorithm)->cryptographic;
}

/* ---- text --------------------------------------------------------------------------------------
 */

static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

bool digest_from_hex(enum digest_algorithm algorithm, const char *hex, size_t length,
                     struct digest *out)
{
    size_t size = digest_size(algorithm);
    struct digest digest = {.algorithm = algorithm};
    if (size == 0 || length != 2 * size)
        return false;
    for (size_t i = 0; i < size; i++) {
        int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        digest.bytes[i] = (uint8_t)(high << 4 | low);
    }
    *out = digest;
    return true;
}

const char *digest_to_hex(const struct digest *digest, char out[DIGEST_MAX_HEX])
{
    static const char digits[] = "0123456789abcdef";
    size_t size = digest_size(digest->algorithm);
    for (size_t i = 0; i < size; i++) {
        out[2 * i] = digits[digest->bytes[i] >> 4];
        out[2 * i + 1] = digits[digest->bytes[i] & 15];
    }
    out[2 * size] = '\0';
    return out;
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
    size_t size = digest_size(a->algorithm);
    return a->algorithm == b->algorithm && size > 0 && memcmp(a->bytes, b->bytes, size) == 0;
}

/* ---- computing ---------------------------------------------------------------------------------
 */

static bool crypto_begin(struct hasher *hasher, uint64_t file_size)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    hasher->state.crypto = context;
    if (context == NULL ||
        EVP_DigestInit_ex(context, properties_of(hasher->algorithm)->crypto(), NULL) != 1)
        return false;
    if (hasher->algorithm != DIGEST_GIT_SHA1)
        return true;
    char header[32];
    int length = snprintf(header, sizeof header, "blob %llu", (unsigned long long)file_size);
    return EVP_DigestUpdate(context, header, (size_t)length + 1) == 1; /* with its NUL */
}

static bool begin(struct hasher *hasher, uint64_t file_size)
{
    switch (hasher->algorithm) {
    case DIGEST_XXH32:
        return XXH32_reset(&hasher->state.xxh32, 0) == XXH_OK;
    case DIGEST_XXH64:
        return XXH64_reset(&hasher->state.xxh64, 0) == XXH_OK;
    case DIGEST_XXH3_64:
        return XXH3_64bits_reset(&hasher->state.xxh3) == XXH_OK;
    case DIGEST_XXH3_128:
        return XXH3_128bits_reset(&hasher->state.xxh3) == XXH_OK;
    default:
        return crypto_begin(hasher, file_size);
    }
}

static bool keyed_begin(struct hasher *hasher, const struct secret *secret)
{
    static char cipher[] = "AES-256-GCM";
    static unsigned char nonce[12];
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_CIPHER, cipher, 0),
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_IV, nonce, sizeof nonce),
        OSSL_PARAM_construct_end()};
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "GMAC", NULL);
    hasher->state.keyed = mac != NULL ? EVP_MAC_CTX_new(mac) : NULL;
    EVP_MAC_free(mac);
    return hasher->state.keyed != NULL &&
           EVP_MAC_init(hasher->state.keyed, secret->bytes, sizeof secret->bytes, parameters) == 1;
}

static struct hasher *hasher_allocate(enum digest_algorithm algorithm)
{
    struct hasher *hasher = aligned_alloc(_Alignof(struct hasher), sizeof *hasher);
    if (hasher == NULL)
        return NULL;
    memset(hasher, 0, sizeof *hasher);
    hasher->algorithm = algorithm;
    return hasher;
}

struct hasher *hasher_new(enum digest_algorithm algorithm, uint64_t file_size)
{
    struct hasher *hasher = digest_size(algorithm) == 0 || algorithm == DIGEST_KEYED
                                ? NULL
                                : hasher_allocate(algorithm);
    if (hasher != NULL && !begin(hasher, file_size)) {
        hasher_free(hasher);
        return NULL;
    }
    return hasher;
}

struct hasher *hasher_new_keyed(const struct secret *secret)
{
    struct hasher *hasher = hasher_allocate(DIGEST_KEYED);
    if (hasher != NULL && !keyed_begin(hasher, secret)) {
        hasher_free(hasher);
        return NULL;
    }
    return hasher;
}

struct digest digest_of(enum digest_algorithm algorithm, const struct secret *secret,
                        const void *data, size_t length)
{
    struct digest digest = {.algorithm = DIGEST_NONE};
    struct hasher *hasher =
        algorithm == DIGEST_KEYED ? hasher_new_keyed(secret) : hasher_new(algorithm, length);
    if (hasher == NULL)
        return digest;
    hasher_update(hasher, data, length);
    hasher_finish(hasher, &digest);
    hasher_free(hasher);
    return digest;
}

struct hasher *hasher_copy(const struct hasher *hasher)
{
    struct hasher *copy =
        hasher->algorithm == DIGEST_KEYED ? NULL : hasher_allocate(hasher->algorithm);
    if (copy == NULL)
        return NULL;
    *copy = *hasher;
    if (properties_of(hasher->algorithm)->crypto == NULL)
        return copy;
    copy->state.crypto = EVP_MD_CTX_new();
    if (copy->state.crypto == NULL ||
        EVP_MD_CTX_copy_ex(copy->state.crypto, hasher->state.crypto) != 1) {
        hasher_free(copy);
        return NULL;
    }
    return copy;
}

void hasher_update(struct hasher *hasher, const void *data, size_t length)
{
    if (length == 0)
        return;
    switch (hasher->algorithm) {
    case DIGEST_XXH32:
        XXH32_update(&hasher->state.xxh32, data, length);
        break;
    case DIGEST_XXH64:
        XXH64_update(&hasher->state.xxh64, data, length);
        break;
    case DIGEST_XXH3_64:
        XXH3_64bits_update(&hasher->state.xxh3, data, length);
        break;
    case DIGEST_XXH3_128:
        XXH3_128bits_update(&hasher->state.xxh3, data, length);
        break;
    case DIGEST_KEYED:
        if (EVP_MAC_update(hasher->state.keyed, data, length) != 1)
            hasher->failed = true;
        break;
    default:
        if (EVP_DigestUpdate(hasher->state.crypto, data, length) != 1)
            hasher->failed = true;
    }
}

void hasher_finish(struct hasher *hasher, struct digest *out)
{
    struct digest digest = {.algorithm = hasher->algorithm};
    switch (hasher->algorithm) {
    case DIGEST_XXH32:
        XXH32_canonicalFromHash((XXH32_canonical_t *)digest.bytes,
                                XXH32_digest(&hasher->state.xxh32));
        break;
    case DIGEST_XXH64:
        XXH64_canonicalFromHash((XXH64_canonical_t *)digest.bytes,
                                XXH64_digest(&hasher->state.xxh64));
        break;
    case DIGEST_XXH3_64:
        XXH64_canonicalFromHash((XXH64_canonical_t *)digest.bytes,
                                XXH3_64bits_digest(&hasher->state.xxh3));
        break;
    case DIGEST_XXH3_128:
        XXH128_canonicalFromHash((XXH128_canonical_t *)digest.bytes,
                                 XXH3_128bits_digest(&hasher->state.xxh3));
        break;
    case DIGEST_KEYED:
        if (EVP_MAC_final(hasher->state.keyed, digest.bytes, &(size_t){0}, sizeof digest.bytes) !=
            1)
            hasher->failed = true;
        break;
    default:
        if (EVP_DigestFinal_ex(hasher->state.crypto, digest.bytes, NULL) != 1)
            hasher->failed = true;
    }
    *out = hasher->failed ? (struct digest){.algorithm = DIGEST_NONE} : digest;
}

void hasher_free(struct hasher *hasher)
{
    if (hasher == NULL)
        return;
    if (properties_of(hasher->algorithm)->crypto != NULL)
        EVP_MD_CTX_free(hasher->state.crypto);
    else if (hasher->algorithm == DIGEST_KEYED)
        EVP_MAC_CTX_free(hasher->state.keyed);
    free(hasher);
}
