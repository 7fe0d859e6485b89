/* SPDX-License-Identifier: MIT
 *
 * Runs of readers, against a model that keeps for each chunk who is about to fetch it. */
#include "engine/runs.h"

#include "property/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { FILES = 3, CHUNKS = 40, READERS = 6, ROUNDS = 200000 };

struct model {
    int owner[FILES][CHUNKS]; /* a reader, or -1 */
};

static struct run table[READERS];

static void own(struct model *model, unsigned reader, const struct run *run, bool owns)
{
    for (uint32_t i = run->next; i < run->end; i++)
        model->owner[run->file][i] = owns ? (int)reader : -1;
}

static bool counts(const struct model *model, unsigned self, bool for_stream, uint32_t file,
                   uint32_t index)
{
    int owner = model->owner[file][index];
    return owner >= 0 && owner != (int)self && (!for_stream || table[owner].stream != 0);
}

/* A new run where nobody else has one, as a search makes it. */
static void begin(struct model *model, struct random_state *random, unsigned self)
{
    uint32_t file = (uint32_t)random_below(random, FILES);
    uint32_t next = (uint32_t)random_below(random, CHUNKS), end = next;
    own(model, self, &table[self], false);
    while (end < CHUNKS && end < next + 8 && model->owner[file][end] < 0)
        end++;
    table[self] = (struct run){
        .file = file, .next = next, .end = end, .stream = (uint32_t)random_below(random, 3)};
    own(model, self, &table[self], true);
}

static void check_skip(const struct runs *runs, const struct model *model,
                       struct random_state *random)
{
    uint32_t file = (uint32_t)random_below(random, FILES);
    uint32_t index = (uint32_t)random_below(random, CHUNKS);
    uint32_t end = index + (uint32_t)random_below(random, CHUNKS - index + 1), expected = index;
    unsigned self = (unsigned)random_below(random, READERS);
    bool for_stream = random_below(random, 2) == 0;
    while (expected < end && counts(model, self, for_stream, file, expected))
        expected++;
    assert_int_equal(runs_skip(runs, self, for_stream, file, index, end), expected);
}

static void check_steal(struct runs *runs, struct model *model, struct random_state *random)
{
    struct run stolen;
    unsigned self = (unsigned)random_below(random, READERS);
    bool plan = random_below(random, 2) == 0;
    uint32_t longest = 0;
    for (unsigned i = 0; i < READERS; i++)
        if (i != self && (plan || table[i].stream != 0) && table[i].end - table[i].next > longest)
            longest = table[i].end - table[i].next;
    assert_int_equal(runs_steal(runs, self, plan, &stolen), longest > 0);
    if (longest == 0)
        return;
    assert_true(counts(model, self, !plan, stolen.file, stolen.next));
    int from = model->owner[stolen.file][stolen.next];
    assert_int_equal(table[from].end, stolen.next);
    assert_int_equal(table[from].end - table[from].next, longest - 1);
    model->owner[stolen.file][stolen.next] = -1;
}

static void advance(struct model *model, unsigned self)
{
    if (!run_is_over(&table[self]))
        model->owner[table[self].file][table[self].next++] = -1;
}

static void end_file(struct runs *runs, struct model *model, uint32_t file)
{
    runs_end_file(runs, file);
    for (uint32_t i = 0; i < CHUNKS; i++)
        model->owner[file][i] = -1;
}

static void as_the_model_says(void **state)
{
    (void)state;
    struct random_state random = {random_seed()};
    struct runs runs = {table, READERS};
    struct model model;
    for (uint32_t file = 0; file < FILES; file++)
        for (uint32_t i = 0; i < CHUNKS; i++)
            model.owner[file][i] = -1;
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned self = (unsigned)random_below(&random, READERS);
        switch (random_below(&random, 8)) {
        case 0:
        case 1:
            begin(&model, &random, self);
            break;
        case 2:
            check_steal(&runs, &model, &random);
            break;
        case 3:
            if (random_below(&random, 20) == 0)
                end_file(&runs, &model, (uint32_t)random_below(&random, FILES));
            break;
        case 4:
        case 5:
            advance(&model, self);
            break;
        default:
            check_skip(&runs, &model, &random);
        }
        bool left = false;
        for (unsigned i = 0; i < READERS; i++)
            left = left || !run_is_over(&table[i]);
        assert_int_equal(runs_have_more(&runs), left);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_the_model_says)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
