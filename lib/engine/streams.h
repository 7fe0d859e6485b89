/* SPDX-License-Identifier: MIT
 *
 * Readers as far as they can be seen: somebody who reads a view from some place onwards is a
 * stream. What a read continues, which streams are worth fetching for, and how far ahead of its
 * reader each may reach, is decided here.
 *
 * A stream also has what its reader has shown about pages that the kernel has dropped: a stretch
 * ahead of it in which nothing that was published before is believed to be there.
 *
 * The life of a stream: begun by a read that continues none, in the place of the one that has been
 * silent for longest; followed from its second read on (at once, where that is asked for), as long
 * as it is not idle; ended when its view is closed, when it has been silent for long, or when its
 * place is needed. Whoever ends it gives back what was reserved for it: [position, reached).
 *
 * Not thread-safe: the engine's lock protects it. Nothing blocks.
 */
#ifndef ENGINE_STREAMS_H
#define ENGINE_STREAMS_H

#include <stdbool.h>
#include <stdint.h>

#define MAX_STREAMS 32U

struct stream {
    uint32_t number; /* of its own; 0: there is no stream in this place */
    uint32_t view;
    bool direct;       /* of readers that see nothing of the page cache */
    uint32_t reads;    /* that have continued it, the first one too */
    uint64_t position; /* end of what was asked for last */
    uint64_t cursor;   /* up to here there is nothing to fetch now */
    uint64_t reached;  /* the farthest that this was */
    uint64_t last_ns;
    uint64_t stretch;    /* as far ahead what was published is not believed; 0: all is */
    uint64_t doubted;    /* the end of that */
    uint32_t doubt_tick; /* ... unless it was published after this */
};

struct streams {
    struct stream all[MAX_STREAMS];
    uint32_t last_number;
};

/* The stream of a read at `offset`: the one that it continues, or a new one. *ended: the one that
 * had to end for that, or one with number 0. */
struct stream *streams_of_read(struct streams *streams, uint32_t view, uint64_t offset, bool direct,
                               struct stream *ended);
/* The reader has asked for bytes up to `end`. */
void stream_advance(struct stream *stream, uint64_t end, uint64_t now_ns);
/* A search for what to fetch has come to `offset`. */
void stream_searched(struct stream *stream, uint64_t offset);
/* Worth fetching for. at_once: from the first read on. */
bool stream_is_followed(const struct stream *stream, bool at_once, uint64_t now_ns);
/* How many are, only direct ones if `direct`. */
unsigned streams_followed(const struct streams *streams, bool at_once, bool direct,
                          uint64_t now_ns);
/* Of those that are followed the one for which the least has been found ahead of its reader, and
 * that is not in *tried, a bit for each place: it is then. NULL: all have been tried. */
struct stream *streams_hungriest(struct streams *streams, bool at_once, uint64_t now_ns,
                                 uint32_t *tried);
/* Something ahead of readers of the view may be fetched that could not be: searches begin anew. */
void streams_search_again(struct streams *streams, uint32_t view);
/* The stream with this number; NULL: it has ended. */
struct stream *streams_by_number(struct streams *streams, uint32_t number);
/* Ends one stream: of the view, or with view UINT32_MAX one that has been silent for long. False:
 * there is none any more. */
bool streams_end(struct streams *streams, uint32_t view, uint64_t now_ns, struct stream *ended);

/* Pages that the reader has found missing. */
struct missing {
    uint64_t end;            /* in the view */
    bool believed;           /* their chunk was, and not doubted already */
    uint32_t published_tick; /* when that was published */
};
/* How far ahead of the missing pages what was published up to doubt_tick is not to be believed:
 * `first` bytes, and four times as far each time that more are missing there or right behind, at
 * most `most`. Where some are missing here and some there, which is how a kernel takes what nobody
 * uses, it stays at `first`: much more is there than is not. */
void stream_doubt(struct stream *stream, const struct missing *missing, uint32_t now_tick,
                  uint64_t first, uint64_t most);

#endif
