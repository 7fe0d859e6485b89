/* The mapping from a view to the bytes behind it. A pure data structure: no I/O, immutable once
 * built, any number of concurrent readers.
 *
 * A view is a sequence of extents without holes: extent i covers view bytes
 * [extents[i].view_offset, extents[i+1].view_offset), the last one up to `size`. No extent is
 * empty. An extent is a range of literal bytes or of a source file. */
#ifndef VIEW_EXTENT_MAP_H
#define VIEW_EXTENT_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXTENT_LITERAL UINT32_MAX

struct extent {
    uint64_t view_offset;
    uint64_t source_offset; /* in the file, or in `literal` */
    uint32_t source;        /* number of the source file, or EXTENT_LITERAL */
    uint32_t reserved;
};

struct extent_map {
    struct extent *extents; /* sorted by view_offset, first at 0 */
    size_t count;
    uint64_t size; /* of the view */
    const char *literal;
    size_t literal_size;
    uint32_t *by_source;   /* extent numbers sorted by (source, source_offset, view_offset) */
    uint64_t *source_ends; /* [i]: largest end among by_source[0..i] with the same source */
};

/* A piece of one extent. */
struct extent_piece {
    uint64_t view_offset, source_offset, length;
    uint32_t source;
};

/* Builds a map: begin, append pieces in view order, finish. Pieces of length 0 are dropped, a piece
 * that continues the last one is joined to it. -ENOMEM, -EOVERFLOW when the size would pass
 * INT64_MAX. */
struct extent_map_builder {
    struct extent *extents;
    size_t count, capacity;
    uint64_t size;
    char *literal;
    size_t literal_size, literal_capacity;
    size_t zeros, zeros_length; /* where in `literal` so many zeros stand */
};
int extent_map_append_source(struct extent_map_builder *builder, uint32_t source,
                             uint64_t source_offset, uint64_t length);
int extent_map_append_literal(struct extent_map_builder *builder, const void *bytes, size_t length);
/* Zeros. Every run of them is the same literal, so that many cost no more than the longest. */
int extent_map_append_zeros(struct extent_map_builder *builder, size_t length);
/* Moves what was appended into *map, builds the reverse index and empties the builder. On failure
 * the builder is emptied too. */
int extent_map_finish(struct extent_map_builder *builder, struct extent_map *map);
void extent_map_builder_free(struct extent_map_builder *builder);
void extent_map_free(struct extent_map *map);
/* A map of the same view in which source file i is numbers[i]. It has arrays of its own, but the
 * literal bytes of `map`, which must outlive it; extent_map_free_renumbered frees it. 0 or -ENOMEM.
 */
int extent_map_renumber(const struct extent_map *map, const uint32_t *numbers,
                        struct extent_map *out);
void extent_map_free_renumbered(struct extent_map *map);
/* Bytes that it takes. */
size_t extent_map_memory(const struct extent_map *map);

/* The piece at view_offset, at most max_length long, all of one extent. view_offset < size. O(log
 * n). */
struct extent_piece extent_map_at(const struct extent_map *map, uint64_t view_offset,
                                  uint64_t max_length);

/* Where source bytes [offset, offset + length) of file `source` appear in the view: an iterator
 * over pieces, in order of source offset. O(log n) to start. */
struct extent_map_images {
    const struct extent_map *map;
    uint64_t offset, end;
    uint32_t source;
    size_t next; /* in by_source */
};
struct extent_map_images extent_map_images_of(const struct extent_map *map, uint32_t source,
                                              uint64_t offset, uint64_t length);
bool extent_map_next_image(struct extent_map_images *images, struct extent_piece *out);
/* The first source file from number `from` on of which the view shows bytes; EXTENT_LITERAL: none.
 * O(log n). */
uint32_t extent_map_next_source(const struct extent_map *map, uint32_t from);

#endif
