/* SPDX-License-Identifier: MIT */
#include "engine/streams.h"

#include <stddef.h>

/* A read this far from where a stream was still continues it. */
#define SLACK (UINT64_C(8) << 20)
/* Nobody has read on for so long: nothing is fetched for a stream any more; it has ended. */
#define IDLE_NS UINT64_C(5000000000)
#define END_NS UINT64_C(15000000000)

/* Since the last read. A clock that was read before that one tells nothing. */
static uint64_t silent_ns(const struct stream *stream, uint64_t now_ns)
{
    return now_ns > stream->last_ns ? now_ns - stream->last_ns : 0;
}

static bool continues(const struct stream *stream, uint32_t view, uint64_t offset, bool direct)
{
    return stream->number != 0 && stream->view == view && stream->direct == direct &&
           offset + SLACK >= stream->position && offset <= stream->reached + SLACK;
}

static struct stream *silent_for_longest(struct streams *streams)
{
    struct stream *oldest = &streams->all[0];
    for (size_t i = 1; i < MAX_STREAMS; i++)
        if (streams->all[i].last_ns < oldest->last_ns)
            oldest = &streams->all[i];
    return oldest;
}

struct stream *streams_of_read(struct streams *streams, uint32_t view, uint64_t offset, bool direct,
                               struct stream *ended)
{
    *ended = (struct stream){0};
    for (size_t i = 0; i < MAX_STREAMS; i++)
        if (continues(&streams->all[i], view, offset, direct))
            return &streams->all[i];
    struct stream *place = silent_for_longest(streams);
    *ended = *place;
    if (++streams->last_number == 0)
        streams->last_number = 1;
    *place = (struct stream){.number = streams->last_number,
                             .view = view,
                             .direct = direct,
                             .position = offset,
                             .cursor = offset,
                             .reached = offset};
    return place;
}

void stream_advance(struct stream *stream, uint64_t end, uint64_t now_ns)
{
    if (end > stream->position)
        stream->position = end;
    if (stream->cursor < stream->position)
        stream->cursor = stream->position;
    if (stream->reached < stream->position)
        stream->reached = stream->position;
    stream->reads++;
    stream->last_ns = now_ns;
}

void stream_searched(struct stream *stream, uint64_t offset)
{
    stream->cursor = offset;
    if (offset > stream->reached)
        stream->reached = offset;
}

bool stream_is_followed(const struct stream *stream, bool at_once, uint64_t now_ns)
{
    unsigned needed = at_once || stream->direct ? 1 : 2;
    return stream->number != 0 && stream->reads >= needed && silent_ns(stream, now_ns) <= IDLE_NS;
}

unsigned streams_followed(const struct streams *streams, bool at_once, bool direct, uint64_t now_ns)
{
    unsigned count = 0;
    for (size_t i = 0; i < MAX_STREAMS; i++)
        count += (streams->all[i].direct || !direct) &&
                 stream_is_followed(&streams->all[i], at_once, now_ns);
    return count;
}

_Static_assert(MAX_STREAMS <= 32, "a bit for each place");

struct stream *streams_hungriest(struct streams *streams, bool at_once, uint64_t now_ns,
                                 uint32_t *tried)
{
    struct stream *found = NULL;
    for (size_t i = 0; i < MAX_STREAMS; i++) {
        struct stream *stream = &streams->all[i];
        if ((*tried >> i & 1) == 0 && stream_is_followed(stream, at_once, now_ns) &&
            (found == NULL || stream->cursor - stream->position < found->cursor - found->position))
            found = stream;
    }
    if (found != NULL)
        *tried |= UINT32_C(1) << (found - streams->all);
    return found;
}

void streams_search_again(struct streams *streams, uint32_t view)
{
    for (size_t i = 0; i < MAX_STREAMS; i++)
        if (streams->all[i].view == view)
            streams->all[i].cursor = streams->all[i].position;
}

struct stream *streams_by_number(struct streams *streams, uint32_t number)
{
    for (size_t i = 0; i < MAX_STREAMS && number != 0; i++)
        if (streams->all[i].number == number)
            return &streams->all[i];
    return NULL;
}

bool streams_end(struct streams *streams, uint32_t view, uint64_t now_ns, struct stream *ended)
{
    for (size_t i = 0; i < MAX_STREAMS; i++) {
        struct stream *stream = &streams->all[i];
        bool over = view != UINT32_MAX ? stream->view == view : silent_ns(stream, now_ns) > END_NS;
        if (stream->number == 0 || !over)
            continue;
        *ended = *stream;
        *stream = (struct stream){0};
        return true;
    }
    return false;
}

void stream_doubt(struct stream *stream, const struct missing *missing, uint32_t now_tick,
                  uint64_t first, uint64_t most)
{
    bool none = stream->stretch == 0;
    bool news = missing->believed && (none || missing->published_tick > stream->doubt_tick);
    bool far = missing->end > stream->doubted + first;
    if (news)
        stream->doubt_tick =
            now_tick > 0 ? now_tick - 1 : 0; /* what comes from now on is believed */
    stream->stretch = none || news || far ? first : 4 * stream->stretch;
    if (stream->stretch > most)
        stream->stretch = most;
    stream->doubted = missing->end + stream->stretch;
}
