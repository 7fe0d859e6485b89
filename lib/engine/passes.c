/* SPDX-License-Identifier: MIT
 *
 * Which file the next pass is over: those that readers wait for, then those under way, then the
 * next ones of the plan; each found without going through all files. Only as many passes are begun
 * unasked as there are processors.
 */
#include "engine/engine_internal.h"

#include "base/lazy_array.h"
#include "formats/gather.h"

#include <errno.h>

#define MOST_UNASKED (UINT64_C(64) << 20)
/* So many whose turn it is are tried to be begun, before the next search. */
#define MOST_TRIES 64U

static size_t words_of(size_t room)
{
    return room / 64 + 1;
}

int passes_init(struct unshard_engine *engine)
{
    struct passes *passes = &engine->passes;
    uint32_t files = checkpoint_file_room(engine->checkpoint);
    passes->room = (size_t)files + 1;
    passes->files = lazy_array_new(passes->room, sizeof *passes->files);
    passes->places = lazy_array_new(passes->room, sizeof *passes->places);
    passes->planned = lazy_array_new(passes->room, sizeof *passes->planned);
    passes->due = lazy_array_new(words_of(passes->room), sizeof *passes->due);
    if (passes->files == NULL || passes->places == NULL || passes->planned == NULL ||
        passes->due == NULL)
        return -ENOMEM;
    int result = number_set_init(&passes->under_way, files);
    return result != 0 ? result : number_set_init(&passes->demanded, files);
}

void passes_free(struct unshard_engine *engine)
{
    struct passes *passes = &engine->passes;
    lazy_array_free(passes->files, passes->room, sizeof *passes->files);
    lazy_array_free(passes->places, passes->room, sizeof *passes->places);
    lazy_array_free(passes->planned, passes->room, sizeof *passes->planned);
    lazy_array_free(passes->due, words_of(passes->room), sizeof *passes->due);
    number_set_free(&passes->under_way);
    number_set_free(&passes->demanded);
}

static bool window_is_full(const struct unshard_engine *engine)
{
    return engine->options.verify == UNSHARD_VERIFY_ASYNC &&
           engine->window.unconsumed_bytes >= engine->window.bytes / 2;
}

/* Another name of the file that a pass is made over; `number` when there is none. Who waits for the
 * one waits for the other. */
static uint32_t find_running(struct unshard_engine *engine, uint32_t number)
{
    uint32_t at = number;
    if (engine->files[number].pass != NULL || !gate_is_closed(&engine->files[number].gate))
        return number;
    while ((at = same_file_next(engine, number, at)) != number)
        if (engine->files[at].pass != NULL && engine->files[at].stalled <= 1)
            break;
    if (at != number && engine->files[number].pass_demanded)
        pass_demand(engine, at);
    return at;
}

/* What nobody prefetches is verified beforehand only when it is small: the data sets and unused
 * revisions of a hub's cache are not to be read because they could be. */
static bool may_pass(const struct unshard_engine *engine, uint32_t place)
{
    const struct file_state *file = &engine->files[engine->passes.files[place]];
    return engine->passes.planned[place] || file->size <= MOST_UNASKED;
}

void pass_demand(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    if (file->epoch->check->kind != CHECK_WHOLE)
        return;
    file->pass_demanded = true;
    number_set_add(&engine->passes.demanded, number);
}

static void set_due(struct unshard_engine *engine, uint32_t place, bool due)
{
    uint64_t bit = UINT64_C(1) << place % 64, *word = &engine->passes.due[place / 64];
    *word = due ? *word | bit : *word & ~bit;
}

static bool is_due(const struct unshard_engine *engine, uint32_t place)
{
    return (engine->passes.due[place / 64] >> place % 64 & 1) != 0;
}

void pass_may_be_due(struct unshard_engine *engine, uint32_t number)
{
    uint32_t place = engine->passes.places[number];
    if (place != 0)
        set_due(engine, place - 1, true);
}

/* Its chunks may have digests of an earlier mount now: when it changes, a pass has to tell of the
 * new content. */
static void add_place(struct unshard_engine *engine, uint32_t number, bool planned)
{
    struct passes *passes = &engine->passes;
    uint32_t place = passes->places[number];
    if (place == 0) {
        place = passes->places[number] = passes->count + 1;
        passes->files[passes->count] = number;
        passes->planned[passes->count++] = planned;
    }
    passes->planned[place - 1] = passes->planned[place - 1] || planned;
    set_due(engine, place - 1, true);
}

void passes_add(struct unshard_engine *engine, uint32_t number, bool planned)
{
    const struct gathered *gathered = engine->checkpoint->files[number].gathered;
    const struct file_state *file = &engine->files[number];
    for (uint32_t i = 0; gathered != NULL && i < gathered->source_count; i++)
        passes_add(engine, gathered->sources[i].file, planned);
    if (file->epoch->whole != NULL && file->chunk_count > 0)
        add_place(engine, number, planned);
}

void passes_plan_view(struct unshard_engine *engine, uint32_t view)
{
    const struct extent_map *map = &engine->checkpoint->views[view].map;
    uint32_t last = EXTENT_LITERAL;
    for (size_t i = 0; i < map->count; i++) {
        if (map->extents[i].source != EXTENT_LITERAL && map->extents[i].source != last)
            passes_add(engine, map->extents[i].source, true);
        last = map->extents[i].source;
    }
}

void passes_remove(struct unshard_engine *engine, uint32_t number)
{
    struct passes *passes = &engine->passes;
    uint32_t place = passes->places[number];
    number_set_remove(&passes->demanded, number);
    if (place-- == 0)
        return;
    passes->places[number] = 0;
    passes->count--;
    for (uint32_t i = place; i < passes->count; i++) {
        passes->files[i] = passes->files[i + 1];
        passes->places[passes->files[i]] = i + 1;
        passes->planned[i] = passes->planned[i + 1];
        set_due(engine, i, is_due(engine, i + 1));
    }
    set_due(engine, passes->count, false);
}

/* The first place from `place` on that may be due, or pass_count. */
static uint32_t next_due(const struct unshard_engine *engine, uint32_t place)
{
    while (place < engine->passes.count) {
        uint64_t rest = engine->passes.due[place / 64] >> place % 64;
        if (rest != 0)
            return place + (uint32_t)__builtin_ctzll(rest);
        place = (place / 64 + 1) * 64;
    }
    return engine->passes.count;
}

bool pass_remains(const struct unshard_engine *engine)
{
    return engine->passes.under_way.count > 0 || next_due(engine, 0) < engine->passes.count;
}

static bool is_wanted_from(const struct unshard_engine *engine, uint32_t number, bool demanded)
{
    const struct file_state *file = &engine->files[number];
    return file->epoch->check->kind == CHECK_WHOLE && !gate_is_blocked(&file->gate) &&
           file->pass_demanded == demanded && file->stalled <= 1;
}

/* The next chunk of the pass over the file, which is begun if it can be. */
static struct fetch *next_of_file(struct unshard_engine *engine, uint32_t number, bool demanded)
{
    uint32_t running = find_running(engine, number);
    if (engine->files[running].pass == NULL && !pass_begin(engine, running, demanded))
        return NULL;
    return pass_read_next(engine, running);
}

/* Of a few files, in the order of the plan. */
static struct fetch *next_of_set(struct unshard_engine *engine, const struct number_set *set,
                                 bool demanded)
{
    for (uint32_t place = 0, next;; place = next + 1) {
        next = UINT32_MAX;
        for (uint32_t i = 0; i < set->count; i++) {
            uint32_t other = engine->passes.places[set->numbers[i]] - 1;
            if (other >= place && other < next)
                next = other;
        }
        if (next == UINT32_MAX)
            return NULL;
        uint32_t number = engine->passes.files[next];
        struct fetch *fetch = is_wanted_from(engine, number, demanded)
                                  ? next_of_file(engine, number, demanded)
                                  : NULL;
        if (fetch != NULL)
            return fetch;
    }
}

static void forget_demands(struct unshard_engine *engine)
{
    struct number_set *demanded = &engine->passes.demanded;
    for (uint32_t i = demanded->count; i-- > 0;)
        if (!engine->files[demanded->numbers[i]].pass_demanded)
            number_set_remove(demanded, demanded->numbers[i]);
}

/* No pass will be begun there unasked, until the file begins anew. */
static bool is_done(const struct unshard_engine *engine, uint32_t place)
{
    const struct file_state *file = &engine->files[engine->passes.files[place]];
    return file->epoch->check->kind != CHECK_WHOLE || gate_is_blocked(&file->gate) ||
           !may_pass(engine, place);
}

/* The first of those whose turn it is that can be begun now. */
static struct fetch *begin_next(struct unshard_engine *engine)
{
    unsigned tries = MOST_TRIES;
    for (uint32_t place = 0; tries > 0 && engine->passes.running < engine->passes.most; place++) {
        place = next_due(engine, place);
        if (place == engine->passes.count)
            return NULL;
        uint32_t number = engine->passes.files[place];
        if (is_done(engine, place)) {
            set_due(engine, place, false);
            continue;
        }
        if (engine->files[number].pass != NULL || !is_wanted_from(engine, number, false))
            continue;
        struct fetch *fetch = next_of_file(engine, number, false);
        if (fetch != NULL)
            return fetch;
        tries--;
    }
    return NULL;
}

struct fetch *pass_next_demanded(struct unshard_engine *engine)
{
    forget_demands(engine);
    return next_of_set(engine, &engine->passes.demanded, true);
}

struct fetch *pass_next(struct unshard_engine *engine)
{
    bool unasked = plan_is_followed(engine) && !engine->pages.no_stores;
    struct fetch *fetch = pass_next_demanded(engine);
    if (fetch != NULL || !unasked || window_is_full(engine))
        return fetch;
    fetch = next_of_set(engine, &engine->passes.under_way, false);
    return fetch != NULL ? fetch : begin_next(engine);
}
