/* SPDX-License-Identifier: MIT
 *
 * Readers as streams: what continues what, what is followed, what ends, against a model in which
 * readers are known by name. */
#include "engine/streams.h"

#include "property/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000000)
#define MIB (UINT64_C(1) << 20)

static struct streams streams;

static struct stream *read_at(uint32_t view, uint64_t offset, uint64_t length, bool direct,
                              uint64_t now)
{
    struct stream ended, *stream = streams_of_read(&streams, view, offset, direct, &ended);
    stream_advance(stream, offset + length, now);
    return stream;
}

static int forget(void **state)
{
    (void)state;
    streams = (struct streams){0};
    return 0;
}

static void who_reads_on_is_the_same(void **state)
{
    (void)state;
    struct stream *stream = read_at(1, 100 * MIB, MIB, false, SECOND);
    uint32_t number = stream->number;
    assert_false(stream_is_followed(stream, false, SECOND));
    assert_true(stream_is_followed(stream, true, SECOND));
    for (uint64_t at = 101 * MIB; at < 200 * MIB; at += MIB)
        assert_int_equal(read_at(1, at, MIB, false, SECOND)->number, number);
    assert_true(stream_is_followed(stream, false, SECOND));
    assert_int_equal(stream->position, 200 * MIB);
    /* A little back, or over what was fetched for it and was not asked for: still the same. */
    assert_int_equal(read_at(1, 195 * MIB, MIB, false, SECOND)->number, number);
    assert_int_equal(stream->position, 200 * MIB);
    stream_searched(stream, 400 * MIB);
    assert_int_equal(read_at(1, 405 * MIB, MIB, false, SECOND)->number, number);
    /* Another place, another view, another way of reading: others. */
    assert_int_not_equal(read_at(1, 500 * MIB, MIB, false, SECOND)->number, number);
    assert_int_not_equal(read_at(2, 406 * MIB, MIB, false, SECOND)->number, number);
    assert_int_not_equal(read_at(1, 406 * MIB, MIB, true, SECOND)->number, number);
    assert_int_equal(streams_followed(&streams, false, false, SECOND), 2);
    assert_int_equal(streams_followed(&streams, false, true, SECOND), 1);
}

/* Many readers in as many files: none gets all before the others get something. */
static void the_one_with_the_least_ahead_comes_first(void **state)
{
    (void)state;
    uint32_t tried = 0;
    for (uint32_t view = 0; view < 4; view++) {
        struct stream *stream = read_at(view, 0, MIB, false, SECOND);
        if (view < 3)
            read_at(view, MIB, MIB, false, SECOND); /* the fourth one is not followed yet */
        stream_searched(stream, stream->position + (3 - view) * MIB);
    }
    for (uint32_t view = 2; view < 3; view--)
        assert_int_equal(streams_hungriest(&streams, false, SECOND, &tried)->view, view);
    assert_null(streams_hungriest(&streams, false, SECOND, &tried));
    tried = 0;
    assert_int_equal(streams_hungriest(&streams, true, SECOND, &tried)->view, 3);
}

static void silence_ends_it(void **state)
{
    (void)state;
    struct stream ended, *stream = read_at(1, 0, MIB, false, 20 * SECOND);
    uint32_t number = read_at(1, MIB, MIB, false, 20 * SECOND)->number;
    assert_true(stream_is_followed(stream, false, 25 * SECOND));
    assert_false(stream_is_followed(stream, false, 26 * SECOND));
    assert_true(stream_is_followed(stream, false, 10 * SECOND)); /* a clock read earlier */
    assert_false(streams_end(&streams, UINT32_MAX, 10 * SECOND, &ended));
    assert_false(streams_end(&streams, UINT32_MAX, 34 * SECOND, &ended));
    assert_true(streams_end(&streams, UINT32_MAX, 36 * SECOND, &ended));
    assert_int_equal(ended.number, number);
    assert_int_equal(ended.position, 2 * MIB);
    assert_null(streams_by_number(&streams, number));
    assert_null(streams_by_number(&streams, 0));
    assert_false(streams_end(&streams, UINT32_MAX, 100 * SECOND, &ended));
}

static void a_view_that_is_closed_ends_its_own(void **state)
{
    (void)state;
    struct stream ended;
    for (uint32_t i = 0; i < MAX_STREAMS; i++)
        read_at(i % 2, i * 100 * MIB, MIB, false, SECOND);
    for (unsigned i = 0; i < MAX_STREAMS / 2; i++) {
        assert_true(streams_end(&streams, 1, 0, &ended));
        assert_int_equal(ended.view, 1);
    }
    assert_false(streams_end(&streams, 1, 0, &ended));
    assert_true(streams_end(&streams, 0, 0, &ended));
}

static uint64_t doubt(struct stream *stream, uint64_t end, bool believed, uint32_t published_tick,
                      uint32_t now_tick)
{
    struct missing missing = {end, believed, published_tick};
    stream_doubt(stream, &missing, now_tick, 8 * MIB, 40 * MIB);
    assert_true(stream->doubted == end + stream->stretch);
    return stream->stretch;
}

static void doubt_grows_with_each_proof(void **state)
{
    (void)state;
    struct stream *stream = read_at(1, 0, MIB, false, SECOND);
    assert_int_equal(doubt(stream, MIB, true, 5, 10), 8 * MIB);
    assert_int_equal(stream->doubt_tick, 9);
    assert_int_equal(doubt(stream, 2 * MIB, false, 5, 11), 32 * MIB); /* in the stretch */
    assert_int_equal(stream->doubt_tick, 9);
    assert_int_equal(doubt(stream, 35 * MIB, true, 5, 11), 40 * MIB); /* behind its end */
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(doubt(stream, 50 * MIB, false, 5, 12), 40 * MIB);
    assert_int_equal(doubt(stream, 90 * MIB, true, 13, 20), 8 * MIB); /* lost anew */
    assert_int_equal(stream->doubt_tick, 19);
}

static void doubt_stays_small_where_little_is_missing(void **state)
{
    (void)state;
    struct stream *stream = read_at(1, 0, MIB, false, SECOND);
    for (uint64_t at = MIB; at < 1000 * MIB; at += 20 * MIB) {
        assert_int_equal(doubt(stream, at, true, 5, 10), 8 * MIB);
        assert_int_equal(stream->doubt_tick, 9);
    }
    uint64_t behind = stream->doubted + MIB;
    assert_int_equal(doubt(stream, behind, true, 5, 10), 32 * MIB); /* now more of it is */
}

enum { READERS = MAX_STREAMS - 2, VIEWS = 5, ROUNDS = 100000 };

struct reader {
    uint64_t at;
    uint32_t view, number;
    bool direct;
};

/* Readers far from each other, fewer than there are places, each at its own pace: none is ever
 * taken for another one, whoever comes and goes besides. */
static void readers_are_told_apart(void **state)
{
    (void)state;
    struct random_state random = {random_seed()};
    struct reader readers[READERS];
    uint64_t now = SECOND;
    for (uint32_t i = 0; i < READERS; i++) {
        readers[i] =
            (struct reader){.at = (uint64_t)i << 40, .view = i % VIEWS, .direct = i % 3 == 0};
        struct reader *reader = &readers[i];
        reader->number = read_at(reader->view, reader->at, MIB, reader->direct, now++)->number;
    }
    for (unsigned round = 0; round < ROUNDS; round++, now += 1000) {
        struct reader *reader = &readers[random_below(&random, READERS)];
        struct stream *stream = streams_by_number(&streams, reader->number);
        if (stream == NULL || random_below(&random, 50) == 0) { /* goes elsewhere */
            reader->at += UINT64_C(1) << 34;
            stream = read_at(reader->view, reader->at, MIB, reader->direct, now);
            reader->number = stream->number;
            continue;
        }
        reader->at = stream->position + random_below(&random, 8 * MIB);
        uint64_t length = random_length(&random), before = stream->position;
        struct stream *found = read_at(reader->view, reader->at, length, reader->direct, now);
        assert_ptr_equal(found, stream);
        assert_true(stream->position >= before && stream->cursor >= stream->position &&
                    stream->reached >= stream->cursor);
        if (random_below(&random, 4) == 0)
            stream_searched(stream, stream->position + random_below(&random, 512 * MIB));
        if (random_below(&random, 100) == 0) {
            streams_search_again(&streams, reader->view);
            assert_int_equal(stream->cursor, stream->position);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(who_reads_on_is_the_same, forget),
        cmocka_unit_test_setup(the_one_with_the_least_ahead_comes_first, forget),
        cmocka_unit_test_setup(silence_ends_it, forget),
        cmocka_unit_test_setup(a_view_that_is_closed_ends_its_own, forget),
        cmocka_unit_test_setup(doubt_grows_with_each_proof, forget),
        cmocka_unit_test_setup(doubt_stays_small_where_little_is_missing, forget),
        cmocka_unit_test_setup(readers_are_told_apart, forget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
