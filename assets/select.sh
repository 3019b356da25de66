#!/bin/sh
# Selects the demo's images from an EmojiShift folder, and writes the lists that its weights were pre-trained on.
#
#   assets/select.sh EMOJISHIFT LISTS [DEST]
#
# EMOJISHIFT  holds identities.csv (id,name,class,subcategory,split) and <domain>/<class>/<id>.png
# LISTS       gets pretrain-train.csv and pretrain-val.csv (path,label; absolute paths)
# DEST        gets the images; default: the folder of this script
#
# With optipng installed the copies are recompressed: the same pixels in fewer bytes.
set -eu
LC_ALL=C
export LC_ALL

fail() {
    echo "select.sh: $1" >&2
    exit 1
}

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    echo "usage: $0 EMOJISHIFT LISTS [DEST]" >&2
    exit 2
fi
[ -f "$1/identities.csv" ] || fail "$1/identities.csv is not there: give the folder that holds it"
source=$(cd "$1" && pwd)
mkdir -p "$2"
lists=$(cd "$2" && pwd)
dest=${3:-$(dirname "$0")}
mkdir -p "$dest"
dest=$(cd "$dest" && pwd)

# The identities of one split, as <class>/<id>.png. The names end up in paths, so anything but plain ones is refused.
identities() {
    awk -F, -v split_name="$1" '
        { sub(/\r$/, "") }
        NR == 1 {
            if ($0 != "id,name,class,subcategory,split") { print "unexpected header: " $0 >"/dev/stderr"; exit 1 }
            next
        }
        NF != 5 || $1 !~ /^[0-9a-f-]+$/ || $3 !~ /^[a-z]+$/ || $5 !~ /^(train|val|test)$/ {
            print "unexpected line " NR ": " $0 >"/dev/stderr"; exit 1
        }
        $5 == split_name { print $3 "/" $1 ".png" }
    ' "$source/identities.csv" || fail "cannot use $source/identities.csv"
}

# select_images DOMAIN SPLIT FOLDER: one split of one domain, into FOLDER/<class>/<id>.png
select_images() {
    rm -rf "${dest:?}/$3"
    names=$(identities "$2")
    for name in $names; do
        mkdir -p "$dest/$3/${name%/*}"
        cp "$source/$1/$name" "$dest/$3/$name" || fail "cannot copy $source/$1/$name"
        chmod 644 "$dest/$3/$name"
    done
    if command -v optipng >/dev/null 2>&1; then
        find "$dest/$3" -name '*.png' -exec optipng -quiet -o5 -strip all {} +
    fi
    printf '%s\t%s images\n' "$3" "$(find "$dest/$3" -name '*.png' | wc -l | tr -d ' ')"
}

# pretrain_list SPLIT: that split of every pre-training style. Google (fine-tuning) and OpenMoji (never seen) stay out.
pretrain_list() {
    list=$lists/pretrain-$1.csv
    names=$(identities "$1")
    echo "path,label" >"$list.part"
    for domain in twitter fluent-flat fluent-3d fluent-hc; do
        for name in $names; do
            [ -f "$source/$domain/$name" ] || fail "$source/$domain/$name is missing"
            printf '"%s","%s"\n' "$quoted/$domain/$name" "${name%/*}"
        done
    done >>"$list.part"
    mv "$list.part" "$list"
    printf '%s\t%s images\n' "$list" "$(($(wc -l <"$list") - 1))"
}

quoted=$(printf '%s' "$source" | sed 's/"/""/g')

select_images google train google/train
select_images google val google/val
select_images google test google/test
select_images twitter test twitter/test
select_images fluent-flat test fluent/flat/test
select_images fluent-hc test fluent/hc/test
select_images openmoji test openmoji/color/test
select_images openmoji-black test openmoji/black/test
pretrain_list train
pretrain_list val
