"""`make picture`: a picture of the running dashboard for the README, taken with the Chromium of this machine."""

import shutil
import sys

from playwright.sync_api import sync_playwright

from streaming.settings import PROJECT_ROOT

PAGE = "http://127.0.0.1:8501"
TARGET = PROJECT_ROOT / "docs" / "dashboard.png"


def main() -> None:
    """Open the page, wait until its charts are drawn, and save it whole. Needs `make demo` in another terminal."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("error: no Chromium on PATH; install one, such as your distribution's package 'chromium'")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        page.goto(PAGE)
        page.wait_for_selector("canvas", timeout=60_000)
        page.wait_for_timeout(5_000)
        page.screenshot(path=TARGET, full_page=True)
        browser.close()
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()
