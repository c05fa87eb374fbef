#!/usr/bin/env bash
# make deb: target/deb/spotter_VERSION_arm64.deb and _amd64.deb.
#
#   packaging/deb.sh [ARCHITECTURE...]      default: arm64 amd64
#
# Made by dpkg-deb itself: what a packager's tool (cargo-deb) would add here is the strip and the maintainer scripts, and the profile
# strips, and the scripts of packaging/debian are the same few lines in plain sight. Two builds of one commit are equal, byte by byte:
# times are the commit's.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -1)
LIMIT=25000000 # bytes of the stripped program
DOC=usr/share/doc/spotter

say() { printf 'deb: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

machine_of() {
    case $1 in
        arm64) echo aarch64 ;;
        amd64) echo x86_64 ;;
        *) die "no architecture '$1': there are arm64 and amd64" ;;
    esac
}

# Debian's names for the shared libraries that the program needs.
depends_of() { # PROGRAM
    local library glibc names=()
    glibc=$(readelf -V "$1" | grep -oE 'GLIBC_[0-9.]+' | sed 's/GLIBC_//' | sort -uV | tail -1)
    for library in $(readelf -d "$1" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p'); do
        case $library in
            libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | ld-linux-*) names+=("libc6 (>= $glibc)") ;;
            libgcc_s.so.1) names+=(libgcc-s1) ;;
            *) die "$1 needs $library, which this script does not know" ;;
        esac
    done
    printf '%s\n' "${names[@]}" | sort -u | paste -sd, | sed 's/,/, /g'
}

# The newest section of CHANGELOG.md in the form that Debian's tools read.
changelog() {
    printf 'spotter (%s) unstable; urgency=medium\n\n' "$VERSION"
    awk '/^## / { if (n++) exit } n && /^- / { sub(/^- /, "  * "); print }' "$ROOT/CHANGELOG.md"
    printf '\n -- %s  %s\n' "$(sed -n 's/^Maintainer: //p' "$ROOT/packaging/debian/control")" "$(date -u -R -d "@$EPOCH")"
}

# Everything that goes to the board, into $TREE.
furnish() { # PROGRAM
    local file name
    install -D -m755 "$1" "$TREE/usr/bin/spotter"
    install -D -m644 "$ROOT/config/spotter.toml" "$TREE/etc/spotter/spotter.toml"
    install -D -m644 "$ROOT/systemd/spotter.service" "$TREE/usr/lib/systemd/system/spotter.service"
    install -D -m644 "$ROOT/systemd/spotter.sysusers" "$TREE/usr/lib/sysusers.d/spotter.conf"
    install -D -m644 "$ROOT/systemd/60-spotter.rules" "$TREE/usr/lib/udev/rules.d/60-spotter.rules"
    install -D -m644 -t "$TREE/usr/share/spotter/models" "$ROOT"/models/vgg16-gap-caltech101.* "$ROOT/models/caltech101-labels.txt"

    install -D -m644 -t "$TREE/$DOC" "$ROOT/packaging/debian/copyright" "$ROOT"/LICENSE-* "$ROOT/config/REFERENCE.md"
    install -m644 "$ROOT/models/README.md" "$TREE/$DOC/README.models.md"
    changelog | gzip -9n > "$TREE/$DOC/changelog.gz"
    install -D -m644 -t "$TREE/$DOC/examples" "$ROOT/docs/alerts.yml" "$ROOT/docs/grafana.json"
    for file in "$ROOT"/config/*.toml; do
        [[ $file == */spotter.toml || $file == */demo.toml ]] || install -m644 -t "$TREE/$DOC/examples" "$file"
    done
    # Additions to the unit for some boards, to be copied to /etc/systemd/system/spotter.service.d.
    for file in "$ROOT"/systemd/spotter.service.d/*; do
        [[ ! -f $file ]] || install -D -m644 -t "$TREE/$DOC/examples/spotter.service.d" "$file"
    done

    (cd "$ROOT" && cargo run --quiet --release --locked --example manual -- "$PARTS/manual")
    for file in "$PARTS"/manual/*.1; do
        name=$TREE/usr/share/man/man1/$(basename "$file").gz
        mkdir -p "$(dirname "$name")"
        gzip -9n < "$file" > "$name"
    done
    install -D -m644 "$PARTS/manual/spotter.bash" "$TREE/usr/share/bash-completion/completions/spotter"
    install -D -m644 "$PARTS/manual/_spotter" "$TREE/usr/share/zsh/vendor-completions/_spotter"
    install -D -m644 "$PARTS/manual/spotter.fish" "$TREE/usr/share/fish/vendor_completions.d/spotter.fish"
}

# DEBIAN/ of the tree.
describe() { # ARCHITECTURE PROGRAM
    mkdir "$TREE/DEBIAN"
    install -m755 -t "$TREE/DEBIAN" "$ROOT"/packaging/debian/{postinst,prerm,postrm}
    echo /etc/spotter/spotter.toml > "$TREE/DEBIAN/conffiles"
    (cd "$TREE" && find etc usr -type f | sort | xargs md5sum > DEBIAN/md5sums)
    sed -e "s/@VERSION@/$VERSION/" -e "s/@ARCHITECTURE@/$1/" -e "s/@DEPENDS@/$(depends_of "$2")/" \
        -e "s/@SIZE@/$(du -sk --apparent-size "$TREE" | cut -f1)/" "$ROOT/packaging/debian/control" > "$TREE/DEBIAN/control"
}

package() { # ARCHITECTURE
    local machine program size
    machine=$(machine_of "$1")
    "$ROOT/cross/build.sh" "$machine" >&2
    program=$TARGET_DIR/$machine-unknown-linux-gnu/dist/spotter
    size=$(stat -c %s "$program")
    ((size <= LIMIT)) || die "$program has $size bytes, more than $LIMIT"
    PARTS=$TARGET_DIR/deb/$1
    TREE=$PARTS/tree
    rm -rf "$PARTS"
    mkdir -p "$TREE"
    furnish "$program"
    describe "$1" "$program"
    find "$TREE" -type d -exec chmod 755 {} +
    find "$TREE" -exec touch --no-dereference --date="@$EPOCH" {} +
    SOURCE_DATE_EPOCH=$EPOCH dpkg-deb --root-owner-group -Zxz --build "$TREE" "$TARGET_DIR/deb/spotter_${VERSION}_$1.deb" > /dev/null
    rows+=("$(printf '%-8s %10d  %10d  %s' "$1" "$size" "$(stat -c %s "$TARGET_DIR/deb/spotter_${VERSION}_$1.deb")" \
        "$TARGET_DIR/deb/spotter_${VERSION}_$1.deb")")
}

umask 022
"$ROOT/cross/packages.sh" build arm
# Not exported: build scripts depend on it, and everything would be compiled again for a package.
EPOCH=$(git -C "$ROOT" log -1 --format=%ct 2> /dev/null || stat -c %Y "$ROOT/CHANGELOG.md")
[ $# -gt 0 ] || set -- arm64 amd64
rows=()
for architecture in "$@"; do
    machine_of "$architecture" > /dev/null
    package "$architecture"
done
printf '\n%-8s %10s  %10s  %s\n' for program package file
printf '%s\n' "${rows[@]}"
