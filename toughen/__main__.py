from toughen.cli import main

if __name__ == "__main__":
    main()
