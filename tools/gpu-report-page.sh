# shellcheck shell=bash disable=SC2154 # part of tools/gpu-report, which sets dir, work and the rest
# The page of tools/gpu-report, from what lies in $dir and $work so far.

# taken KEY: what `devices` says of the adapter that a run takes.
taken() {
    awk -v key="\"$1\":" '
        function value(line) { sub(/^[^:]*: */, "", line); sub(/,$/, "", line); gsub(/^"|"$/, "", line); return line }
        /^  \{/ { found = ""; features = "" }
        $1 == key { found = value($0) }
        /^      "/ { gsub(/[ ",]/, ""); features = features " " $0 }
        /"taken": true/ { taken = 1 }
        /^  \}/ && taken { print key == "\"features\":" ? features " " : found; exit }
    ' "$work/devices.json" 2>/dev/null
}
# rows PART: name, shape, ms, rate, share of the peak, more; of a part that was cut, from what it said on the way.
rows() {
    if [ -s "$dir/$1.json" ]; then
        awk '
            function value(line) { sub(/^[^:]*: */, "", line); sub(/,$/, "", line); gsub(/^"|"$/, "", line); return line }
            function number(v) { v += 0; return v >= 100 ? sprintf("%.0f", v) : v >= 1 ? sprintf("%.2f", v) : sprintf("%.3g", v) }
            /^  \{/ { split("", r); more = "" }
            /^    "/ {
                key = $1
                gsub(/[":]/, "", key)
                r[key] = value($0)
                if (key !~ /^(workload|shape|precision|median_ms|min_ms|reps|gflops|gbs|share_of_peak|peak|adapter)$/)
                    more = more (more == "" ? "" : ", ") key " " number(r[key])
            }
            /^  \}/ {
                rate = r["gflops"] != "null" ? number(r["gflops"]) " GFLOP/s" : r["gbs"] != "null" ? number(r["gbs"]) " GB/s" : "-"
                share = r["share_of_peak"] == "null" ? "-" : sprintf("%.1f %%", 100 * r["share_of_peak"])
                printf "%s\t%s\t%s\t%s\t%s\t%s\n", r["workload"], r["shape"], number(r["median_ms"]), rate, share, more
            }' "$dir/$1.json"
    elif [ -f "$work/$1.err" ]; then
        awk '/^\[[0-9]*\/[0-9]*\] [a-z0-9_]*: [0-9.]* ms$/ { sub(/:/, "", $2); printf "%s\t-\t%s\t-\t-\t\n", $2, $3 }' \
            "$work/$1.err"
    fi
}

workload_table() {
    local name
    for name in bench-f32 bench-f16 bench-f16-plain; do rows "$name" >"$work/$name.rows"; done
    [ -s "$work/bench-f32.rows" ] || [ -s "$work/bench-f16.rows" ] || return 0
    printf '\n## Workloads\n\n'
    for name in bench-f32 bench-f16 bench-f16-plain; do
        ! grep -q '^peak: ' "$work/$name.err" 2>/dev/null || echo "- before $name, $(grep '^peak: ' "$work/$name.err")"
    done
    echo
    echo '| workload | shape | f32 ms | rate | of peak | f16 ms | f16 ms without matrices | besides |'
    echo '| --- | --- | --- | --- | --- | --- | --- | --- |'
    awk -F '\t' -v f32="$work/bench-f32.rows" -v f16="$work/bench-f16.rows" '
        function get(table, name, none) { return (name SUBSEP table) in ms ? ms[name, table] : "-" }
        {
            if (!($1 in seen)) { seen[$1]; order[++n] = $1; shape[$1] = $2 }
            ms[$1, FILENAME] = $3
            if (FILENAME == f32) { rate[$1] = $4; share[$1] = $5; more[$1] = $6 }
        }
        END {
            for (i = 1; i <= n; i++) {
                w = order[i]
                # What has no f16 of its own is timed once.
                printf "| `%s` | %s | %s | %s | %s | %s | %s | %s |\n", w, shape[w], get(f32, w), w in rate ? rate[w] : "-", \
                    w in share ? share[w] : "-", get(f16, w), get(plain, w), more[w]
            }
        }' plain="$work/bench-f16-plain.rows" "$work"/bench-f32.rows "$work"/bench-f16.rows "$work"/bench-f16-plain.rows
}

# tuning_table PART TITLE: a line for each class of products.
tuning_table() {
    [ -s "$dir/$1.json" ] || return 0
    printf '\n<details><summary>%s</summary>\n\n' "$2"
    echo '| product | chosen | ms | GFLOP/s | the others, ms |'
    echo '| --- | --- | --- | --- | --- |'
    awk '
        function value(line) { sub(/^[^:]*: */, "", line); sub(/,$/, "", line); gsub(/^"|"$/, "", line); return line }
        function number(v) {
            if (v == "null") return "-"
            v += 0
            return v >= 100 ? sprintf("%.0f", v) : v >= 1 ? sprintf("%.2f", v) : sprintf("%.3g", v)
        }
        /^    "class":/ { class = value($0); chosen = ms = rate = "-"; others = "" }
        /^      \{/ { split("", c) }
        /^        "/ { key = $1; gsub(/[":]/, "", key); c[key] = value($0) }
        /^      \}/ {
            name = c["tile"] (c["split"] == 1 ? "" : " ÷ " c["split"]) (c["default"] == "true" ? " (default)" : "")
            if (c["chosen"] == "true") {
                chosen = name; ms = number(c["ms"]); rate = number(c["gflops"])
            } else {
                others = others (others == "" ? "" : ", ") name " " number(c["ms"])
                if (("refused" in c) && c["refused"] != "null") others = others " REFUSED: " c["refused"]
            }
        }
        /^  \}/ { printf "| %s | %s | %s | %s | %s |\n", class, chosen, ms, rate, others }
    ' "$dir/$1.json"
    printf '\n</details>\n'
}

# check_lines PART: how many cases passed, and those that did not.
check_lines() {
    if [ -s "$dir/$1.json" ]; then
        awk -v part="$1" '
            function value(line) { sub(/^[^:]*: */, "", line); sub(/,$/, "", line); gsub(/^"|"$/, "", line); return line }
            /^    \{/ { split("", c) }
            /^      "/ { key = $1; gsub(/[":]/, "", key); c[key] = value($0) }
            /^    \}/ {
                cases++
                if (c["passed"] == "false") {
                    failed++
                    if (failed <= 40) list = list sprintf("- `%s` at %s: error %s, tolerance %s%s\n", c["kernel"], c["case"], \
                        c["error"], c["tolerance"], c["failure"] == "null" ? "" : ", " c["failure"])
                }
            }
            END {
                printf "- **%s**: %d cases, %s\n", part, cases, failed ? failed " FAILED:" : "none failed"
                printf "%s", list
            }' "$dir/$1.json"
    elif [ -n "$(state "$1")" ] && [ "$(state "$1")" != skipped ]; then
        printf -- '- **%s** did not end; %s failures were seen before\n' "$1" "$(grep -c '^FAILED' "$work/$1.err")"
        grep '^FAILED' "$work/$1.err" | head -40 | sed 's/^/- /'
    fi
}

block() { # TITLE FILE
    [ -s "$2" ] || return 0
    printf '\n## %s\n\n```text\n' "$1"
    cat "$2"
    printf '```\n'
}

compose() {
    printf '# %s\n\n' "$(taken name | grep . || echo 'No adapter')"
    echo '| | |'
    echo '| --- | --- |'
    printf '| adapter | %s, %s, %s |\n' "$(taken name)" "$(taken backend)" "$(taken type)"
    printf '| driver | %s %s |\n' "$(taken driver)" "$(taken driver_info)"
    printf '| program | %s |\n' "$("$tpgm" --version 2>/dev/null)"
    printf '| system | %s |\n' "$(uname -srm)"
    [ -z "${device:-}" ] || printf '| PyTorch | %s on %s |\n' "$version" "$device"
    printf '| when | %s |\n' "$(date -u '+%Y-%m-%d %H:%M UTC')"
    printf '\n## What ran\n\n| part | came to | s | |\n| --- | --- | --- | --- |\n'
    awk -F '\t' '{ printf "| %s | %s | %s | %s |\n", $1, $2 == "ok" || $2 == "skipped" ? $2 : "**" $2 "**", $3, $4 }' "$work/parts"
    for name in $todo; do echo "| $name | not yet | | |"; done
    if [ -n "$(state check)$(state check-full)" ]; then
        printf '\n## Kernels against their references\n\n'
        check_lines check
        check_lines check-full
    fi
    # Such as variants that compute the wrong thing here. The time in front is of no use.
    grep -h '^[0-9TZ:.-]* *WARN ' "$work"/*.err 2>/dev/null | sed 's/^[^ ]* *//' | sort -u | head -40 >"$work/warnings"
    block 'Warnings' "$work/warnings"
    workload_table
    if [ -s "$dir/torch.md" ]; then
        printf '\n## Beside PyTorch\n\nIn turn, workload by workload; a ratio over 1 says that the other takes longer.\n\n'
        cat "$dir/torch.md"
    fi
    if [ -s "$dir/demo.txt" ]; then
        printf '\n## The demo\n\n```text\n'
        sed '/report\.html$/d' "$dir/demo.txt"
        printf '```\n'
        grep 'images/s' "$work/demo.err" | tail -1 | sed 's/^/\nAt last /'
    fi
    if [ -s "$dir/tuning-f32.json" ] || [ -s "$dir/tuning-f16.json" ]; then
        printf '\n## What the tuner chose\n\nLarge products are cut to fewer rows for this; ÷ n: n workgroups share each sum.\n'
        tuning_table tuning-f32 f32
        tuning_table tuning-f16 f16
    fi
    block 'The adapters' "$dir/devices.txt"
    block 'The machine' "$dir/card.txt"
}

page() { compose >"$work/report.md" && cp "$work/report.md" "$dir/.report.md" && mv "$dir/.report.md" "$dir/report.md"; }
