/* SPDX-License-Identifier: MIT
 *
 * The value of split=: "auto", "off", or a list "PREFIX[=NAME],..." whose items are separated by
 * commas or colons. */
#ifndef TREE_SPLIT_OPTION_H
#define TREE_SPLIT_OPTION_H

#include "tree/component_prefix.h"
#include "unshard.h"

enum split_mode { SPLIT_AUTO, SPLIT_OFF, SPLIT_NAMED };

struct split_option {
    enum split_mode mode;
    struct component_prefixes prefixes; /* of SPLIT_NAMED */
};

/* Parses a value (NULL: the default, auto). A dot is added to a prefix that does not end with one;
 * without NAME the directory is the usual one for the prefix. Refuses with "bad-option": an empty
 * list, an empty or too long prefix, a prefix twice, a NAME that is no plain name of a directory or
 * begins with a dot, more than COMPONENT_PREFIXES_MAX items. Pure. */
int split_option_parse(const char *value, struct split_option *out, struct unshard_error *error);

#endif
