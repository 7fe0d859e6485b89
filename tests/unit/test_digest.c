/* SPDX-License-Identifier: MIT */
#include "digest/digest.h"
#include "digest/secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HELLO "hello"
#define WORLD "Hello, World!"

/* Published vectors: FIPS 180-4, RFC 1321, git hash-object, xxhsum. */
static const struct row {
    enum digest_algorithm algorithm;
    const char *name, *content, *hex;
} rows[] = {
    {DIGEST_SHA256, "sha256", HELLO,
     "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"},
    {DIGEST_SHA256, "sha256", "",
     "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {DIGEST_SHA512, "sha512", "abc",
     "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
     "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"},
    {DIGEST_SHA1, "sha1", "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
    {DIGEST_GIT_SHA1, "git-sha1", HELLO, "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"},
    {DIGEST_GIT_SHA1, "git-sha1", WORLD, "b45ef6fec89518d314f546fd6c3025367b721684"},
    {DIGEST_GIT_SHA1, "git-sha1", "", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"},
    {DIGEST_MD5, "md5", "abc", "900150983cd24fb0d6963f7d28e17f72"},
    {DIGEST_XXH32, "xxh32", HELLO, "fb0077f9"},
    {DIGEST_XXH64, "xxh64", HELLO, "26c7827d889f6da3"},
    {DIGEST_XXH3_64, "xxh3-64", HELLO, "9555e8555c62dcfd"},
    {DIGEST_XXH3_128, "xxh3-128", HELLO, "b5e9c1ad071b3e7fc779cfaa5e523818"},
};
#define ROW_COUNT (sizeof rows / sizeof *rows)

static void vectors_match(void **state)
{
    (void)state;
    for (size_t i = 0; i < ROW_COUNT; i++) {
        struct digest computed, expected;
        char hex[DIGEST_MAX_HEX];
        size_t length = strlen(rows[i].content);
        struct hasher *hasher = hasher_new(rows[i].algorithm, length);
        assert_non_null(hasher);
        hasher_update(hasher, rows[i].content, length);
        hasher_finish(hasher, &computed);
        hasher_free(hasher);
        assert_string_equal(digest_to_hex(&computed, hex), rows[i].hex);
        assert_true(
            digest_from_hex(rows[i].algorithm, rows[i].hex, strlen(rows[i].hex), &expected));
        assert_true(digest_equal(&computed, &expected));
        assert_string_equal(digest_algorithm_name(rows[i].algorithm), rows[i].name);
    }
}

/* Without the secret, or with one bit of the content changed, it is another digest. */
static void keyed_digests_depend_on_secret_and_content(void **state)
{
    static const struct secret one = {{1}}, two = {{2}};
    (void)state;
    struct digest a = digest_of(DIGEST_KEYED, &one, "content", 7);
    struct digest again = digest_of(DIGEST_KEYED, &one, "content", 7);
    struct digest other = digest_of(DIGEST_KEYED, &one, "kontent", 7);
    struct digest longer = digest_of(DIGEST_KEYED, &one, "content\0", 8);
    struct digest secret = digest_of(DIGEST_KEYED, &two, "content", 7);
    assert_int_equal(a.algorithm, DIGEST_KEYED);
    assert_true(digest_equal(&a, &again));
    assert_false(digest_equal(&a, &other) || digest_equal(&a, &longer) ||
                 digest_equal(&a, &secret));
    assert_null(hasher_new(DIGEST_KEYED, 7)); /* there is none without a secret */
}

/* Feeding a content in pieces of any length gives what feeding it at once gives. */
static void pieces_make_no_difference(void **state)
{
    (void)state;
    enum { SIZE = 300000 };
    unsigned char *content = malloc(SIZE);
    assert_non_null(content);
    for (uint32_t i = 0, x = 1; i < SIZE; i++, x = x * 1664525 + 1013904223)
        content[i] = (unsigned char)(x >> 24);
    for (enum digest_algorithm a = DIGEST_SHA256; a < DIGEST_ALGORITHM_COUNT; a++) {
        struct digest whole, pieces;
        static const struct secret secret = {{1, 2, 3}};
        bool keyed = a == DIGEST_KEYED;
        struct hasher *one = keyed ? hasher_new_keyed(&secret) : hasher_new(a, SIZE);
        struct hasher *many = keyed ? hasher_new_keyed(&secret) : hasher_new(a, SIZE);
        assert_non_null(one);
        assert_non_null(many);
        hasher_update(one, content, SIZE);
        for (size_t done = 0, piece = 0; done < SIZE; done += piece) {
            piece = piece * 3 + 1;
            piece = piece < SIZE - done ? piece : SIZE - done;
            hasher_update(many, content + done, piece);
            hasher_update(many, NULL, 0);
        }
        hasher_finish(one, &whole);
        hasher_finish(many, &pieces);
        assert_true(digest_equal(&whole, &pieces));
        hasher_free(one);
        hasher_free(many);
    }
    free(content);
}

static void a_copy_goes_its_own_way(void **state)
{
    (void)state;
    for (enum digest_algorithm a = DIGEST_SHA256; a < DIGEST_ALGORITHM_COUNT; a++) {
        struct digest whole, theirs, ours;
        struct hasher *copy, *hasher = a == DIGEST_KEYED ? NULL : hasher_new(a, 1000);
        char content[1000];
        if (hasher == NULL)
            continue;
        memset(content, 'x', sizeof content);
        whole = digest_of(a, NULL, content, sizeof content);
        hasher_update(hasher, content, 300);
        assert_non_null(copy = hasher_copy(hasher));
        hasher_update(copy, content, 700);
        hasher_update(hasher, "other", 5);
        hasher_finish(copy, &ours);
        hasher_finish(hasher, &theirs);
        hasher_free(hasher);
        hasher_free(copy);
        assert_true(digest_equal(&ours, &whole));
        assert_false(digest_equal(&theirs, &whole));
    }
}

static void a_length_not_announced_is_another_git_digest(void **state)
{
    (void)state;
    struct digest computed, expected;
    struct hasher *hasher = hasher_new(DIGEST_GIT_SHA1, 6);
    hasher_update(hasher, HELLO, 5);
    hasher_finish(hasher, &computed);
    hasher_free(hasher);
    assert_true(digest_from_hex(DIGEST_GIT_SHA1, "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0", 40,
                                &expected));
    assert_false(digest_equal(&computed, &expected));
}

static void hex_is_exact(void **state)
{
    (void)state;
    struct digest digest = {0}, lower;
    char hex[DIGEST_MAX_HEX];
    assert_true(digest_from_hex(DIGEST_XXH32, "FB0077f9", 8, &digest));
    assert_true(digest_from_hex(DIGEST_XXH32, "fb0077F9", 8, &lower));
    assert_true(digest_equal(&digest, &lower));
    assert_string_equal(digest_to_hex(&digest, hex), "fb0077f9");
    static const char *const wrong[] = {"",         "fb0077f",  "fb0077f90", "fb0077fg", "0xfb0077",
                                        " b0077f9", "fb00 7f9", "fb0077f:",  "fb0077f/"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct digest untouched = lower;
        assert_false(digest_from_hex(DIGEST_XXH32, wrong[i], strlen(wrong[i]), &untouched));
        assert_true(digest_equal(&untouched, &lower));
    }
    assert_false(digest_from_hex(DIGEST_NONE, "", 0, &digest));
}

static void none_and_other_algorithms_equal_nothing(void **state)
{
    (void)state;
    struct digest none = {0}, sha1 = {.algorithm = DIGEST_SHA1},
                  git = {.algorithm = DIGEST_GIT_SHA1};
    char hex[DIGEST_MAX_HEX];
    assert_false(digest_equal(&none, &none));
    assert_false(digest_equal(&sha1, &git));
    assert_null(hasher_new(DIGEST_NONE, 0));
    assert_null(hasher_new(DIGEST_ALGORITHM_COUNT, 0));
    assert_string_equal(digest_to_hex(&none, hex), "");
    assert_int_equal(digest_size(DIGEST_NONE), 0);
    assert_int_equal(digest_size((enum digest_algorithm)77), 0);
    hasher_free(NULL);
}

static void only_sha2_is_cryptographic(void **state)
{
    (void)state;
    for (enum digest_algorithm a = DIGEST_NONE; a < DIGEST_ALGORITHM_COUNT; a++)
        assert_int_equal(digest_is_cryptographic(a), a == DIGEST_SHA256 || a == DIGEST_SHA512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_match),
        cmocka_unit_test(pieces_make_no_difference),
        cmocka_unit_test(keyed_digests_depend_on_secret_and_content),
        cmocka_unit_test(a_copy_goes_its_own_way),
        cmocka_unit_test(a_length_not_announced_is_another_git_digest),
        cmocka_unit_test(hex_is_exact),
        cmocka_unit_test(none_and_other_algorithms_equal_nothing),
        cmocka_unit_test(only_sha2_is_cryptographic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
